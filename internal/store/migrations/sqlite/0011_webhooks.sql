-- Where events are sent to, and how far each webhook is.
CREATE TABLE webhooks (
	tenant    TEXT NOT NULL, -- '': of the service
	name      TEXT NOT NULL,
	kinds     TEXT NOT NULL, -- of events, with a space between; '': those that are sent without asking
	settings  BLOB NOT NULL, -- URL and secrets, JSON
	sealed    TEXT NOT NULL, -- the id of the key that settings are sealed with; '': they are not
	created   INTEGER NOT NULL,
	version   INTEGER NOT NULL, -- of what is above
	reached   INTEGER NOT NULL, -- the last event that is delivered or held, as all before it are
	held      TEXT NOT NULL DEFAULT '', -- JSON: names whose events wait for one that was not taken
	since     INTEGER NOT NULL DEFAULT 0, -- when the first of them was tried first; 0: there are none
	problem   TEXT NOT NULL DEFAULT '', -- why
	failures  INTEGER NOT NULL DEFAULT 0, -- in a row
	lost      INTEGER NOT NULL DEFAULT 0,
	delivered INTEGER NOT NULL DEFAULT 0, -- last
	paused    INTEGER NOT NULL DEFAULT 0,
	due       INTEGER NOT NULL DEFAULT 0, -- when one that is held is tried next; 0: there are none
	rest      INTEGER NOT NULL DEFAULT 0, -- no event behind reached is sent before
	holder    TEXT NOT NULL DEFAULT '', -- who delivers
	leased    INTEGER NOT NULL DEFAULT 0, -- and until when, unless he says otherwise
	PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;
