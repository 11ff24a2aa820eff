-- What happened: changes with who made them, and what was found. Rows go when they are old.
CREATE TABLE events (
	seq    BIGINT NOT NULL PRIMARY KEY, -- from versions.last
	at     BIGINT NOT NULL,
	tenant TEXT COLLATE "C" NOT NULL, -- '': of the service itself
	kind   TEXT NOT NULL,
	name   TEXT COLLATE "C" NOT NULL,
	actor  TEXT NOT NULL,
	text   TEXT NOT NULL,
	was    TEXT NOT NULL, -- JSON; '': nothing, here and below
	became TEXT NOT NULL
);
CREATE INDEX events_tenant ON events (tenant, seq);
CREATE INDEX events_name ON events (tenant, name, seq);
