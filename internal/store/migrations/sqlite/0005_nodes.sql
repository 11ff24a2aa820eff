-- Which write last changed what a domain is served, so that who serves it can ask for what changed since.
ALTER TABLE domains ADD COLUMN change INTEGER NOT NULL DEFAULT 0; -- versions.last of that write; 0: from before there was this
CREATE INDEX domains_change ON domains (change);
-- Domains that were deleted, for the same. There is no more of it than of their history.
CREATE TABLE dropped_domains (
	name   TEXT NOT NULL PRIMARY KEY,
	change INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX dropped_domains_change ON dropped_domains (change);

-- The processes on this store; with this engine there is one at a time.
CREATE TABLE nodes (
	id           TEXT NOT NULL PRIMARY KEY,
	holder       TEXT NOT NULL, -- of which opening of the store the heartbeat is
	address      TEXT NOT NULL,
	started      INTEGER NOT NULL,
	heartbeat    INTEGER NOT NULL,
	acknowledged INTEGER NOT NULL, -- it serves all changes up to this one
	deregistered INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
-- By which opening of the store a domain was claimed, and an order begun.
ALTER TABLE domains ADD COLUMN holder TEXT NOT NULL DEFAULT '';
ALTER TABLE journal ADD COLUMN holder TEXT NOT NULL DEFAULT '';
