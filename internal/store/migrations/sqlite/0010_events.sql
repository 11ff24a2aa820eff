-- What happened: changes with who made them, and what was found. Rows go when they are old.
CREATE TABLE events (
	seq    INTEGER PRIMARY KEY, -- from versions.last
	at     INTEGER NOT NULL,
	tenant TEXT NOT NULL, -- '': of the service itself
	kind   TEXT NOT NULL,
	name   TEXT NOT NULL,
	actor  TEXT NOT NULL,
	text   TEXT NOT NULL,
	was    TEXT NOT NULL, -- JSON; '': nothing, here and below
	became TEXT NOT NULL
) STRICT;
-- Each has seq behind it, as every index has the row's number.
CREATE INDEX events_tenant ON events (tenant);
CREATE INDEX events_name ON events (tenant, name);
