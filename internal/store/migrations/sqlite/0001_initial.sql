-- Times are microseconds since 1970 in UTC, 0 is "not set". Truth values are 0 and 1.

-- The number of the last transaction that changed a domain. It only grows, so a version is never seen twice, not even by
-- a domain that was deleted and came back.
CREATE TABLE versions (
	last INTEGER NOT NULL
) STRICT;
INSERT INTO versions (last) VALUES (0);

CREATE TABLE mxsets (
	tenant  TEXT NOT NULL,
	name    TEXT NOT NULL,
	owner   TEXT NOT NULL, -- who declares it; '': nobody any more, kept for the domains that use it
	mode    TEXT NOT NULL,
	max_age INTEGER NOT NULL, -- seconds
	mx      TEXT NOT NULL, -- JSON array of patterns
	PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE domains (
	name           TEXT NOT NULL PRIMARY KEY, -- A-label
	tenant         TEXT NOT NULL,
	mxset          TEXT NOT NULL,
	publish        TEXT NOT NULL,
	account        TEXT NOT NULL,
	owner          TEXT NOT NULL,
	adopt          INTEGER NOT NULL,
	declared_adopt INTEGER NOT NULL, -- adopt as its owner declared it; adopt itself is also written by Save
	tlsrpt         TEXT NOT NULL DEFAULT '', -- content of the TLSRPT record; '': none is wanted
	added          INTEGER NOT NULL,
	removed        INTEGER NOT NULL DEFAULT 0,

	due            INTEGER NOT NULL, -- while claimed: the end of the lease
	claimed        INTEGER NOT NULL DEFAULT 0, -- when it was claimed and not saved since; 0: it is not
	woken          INTEGER NOT NULL DEFAULT 0, -- it was to be woken while claimed: due as soon as it is saved
	version        INTEGER NOT NULL, -- versions.last of the last write

	served         TEXT NOT NULL DEFAULT '',
	dirty          INTEGER NOT NULL DEFAULT 0,
	record         TEXT NOT NULL DEFAULT '',
	zone           TEXT NOT NULL DEFAULT '',
	id             TEXT NOT NULL DEFAULT '',
	intended       TEXT NOT NULL DEFAULT '',
	wrote          INTEGER NOT NULL DEFAULT 0,
	fresh          INTEGER NOT NULL DEFAULT 0,
	settle         INTEGER NOT NULL DEFAULT 0,
	handover       INTEGER NOT NULL DEFAULT 0, -- microseconds
	old_ttl        INTEGER NOT NULL DEFAULT 0, -- microseconds
	horizon        INTEGER NOT NULL DEFAULT 0,
	deleted        INTEGER NOT NULL DEFAULT 0,
	away           INTEGER NOT NULL DEFAULT 0,
	forced         TEXT NOT NULL DEFAULT '',
	detached       INTEGER NOT NULL DEFAULT 0,
	staged         INTEGER NOT NULL DEFAULT 0,
	promoted       INTEGER NOT NULL DEFAULT 0,
	pinned         INTEGER NOT NULL DEFAULT 0,
	expelled       INTEGER NOT NULL DEFAULT 0,
	findings       TEXT NOT NULL DEFAULT '', -- JSON array; '': none
	step           TEXT NOT NULL DEFAULT '',
	reason         TEXT NOT NULL DEFAULT '',
	since          INTEGER NOT NULL DEFAULT 0,
	fault          INTEGER NOT NULL DEFAULT 0,
	failures       INTEGER NOT NULL DEFAULT 0,
	checked        INTEGER NOT NULL DEFAULT 0,

	report_record   TEXT NOT NULL DEFAULT '', -- the TLSRPT record
	report_zone     TEXT NOT NULL DEFAULT '',
	report_text     TEXT NOT NULL DEFAULT '', -- values of ours, a line each
	report_wrote    INTEGER NOT NULL DEFAULT 0,
	report_verified INTEGER NOT NULL DEFAULT 0,
	report_problem  TEXT NOT NULL DEFAULT '',
	report_failures INTEGER NOT NULL DEFAULT 0,

	FOREIGN KEY (tenant, mxset) REFERENCES mxsets (tenant, name)
) STRICT;
-- The order in which domains are claimed.
CREATE INDEX domains_due ON domains (due, name);
-- Which MX sets are in use.
CREATE INDEX domains_mxset ON domains (tenant, mxset);
-- The shared record of an MX set.
CREATE INDEX domains_shared ON domains (tenant, mxset) WHERE publish = 'wildcard';
-- The order in which those are claimed.
CREATE INDEX domains_shared_due ON domains (due, name) WHERE publish = 'wildcard';
-- What the next start has to release.
CREATE INDEX domains_claimed ON domains (name) WHERE claimed <> 0;

-- Every policy that was ever served for a domain. It outlives the domain.
CREATE TABLE history (
	seq        INTEGER PRIMARY KEY AUTOINCREMENT,
	name       TEXT NOT NULL,
	text       TEXT NOT NULL,
	by_foreign INTEGER NOT NULL, -- served by somebody else
	since      INTEGER NOT NULL,
	until      INTEGER NOT NULL -- 0: still served
) STRICT;
CREATE INDEX history_name ON history (name, seq);

-- Every id that was ever intended for a record. RFC 8461, Section 3.1: none of them is used twice.
CREATE TABLE ids (
	seq      INTEGER PRIMARY KEY AUTOINCREMENT,
	id       TEXT NOT NULL UNIQUE,
	record   TEXT NOT NULL,
	text     TEXT NOT NULL, -- the policy that it stood for
	intended INTEGER NOT NULL,
	verified INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX ids_record ON ids (record, seq);

CREATE TABLE certificates (
	name        TEXT NOT NULL PRIMARY KEY,
	private_key BLOB NOT NULL, -- PKCS #8, DER
	chain       BLOB NOT NULL, -- leaf first; before each certificate its length as uvarint
	not_before  INTEGER NOT NULL,
	not_after   INTEGER NOT NULL
) STRICT;

CREATE TABLE orders (
	name     TEXT NOT NULL PRIMARY KEY,
	failures INTEGER NOT NULL, -- in a row; 0: it went well
	tried    INTEGER NOT NULL,
	next     INTEGER NOT NULL,
	problem  TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE key_values (
	name  TEXT NOT NULL PRIMARY KEY, -- "acme/…", "publish/…"
	value BLOB NOT NULL
) STRICT;
