-- Where events are sent to, and how far each webhook is.
CREATE TABLE webhooks (
	tenant    TEXT COLLATE "C" NOT NULL, -- '': of the service
	name      TEXT COLLATE "C" NOT NULL,
	kinds     TEXT NOT NULL, -- of events, with a space between; '': those that are sent without asking
	settings  BYTEA NOT NULL, -- URL and secrets, JSON
	sealed    TEXT NOT NULL, -- the id of the key that settings are sealed with; '': they are not
	created   BIGINT NOT NULL,
	version   BIGINT NOT NULL, -- of what is above
	reached   BIGINT NOT NULL, -- the last event that is delivered or held, as all before it are
	held      TEXT NOT NULL DEFAULT '', -- JSON: names whose events wait for one that was not taken
	since     BIGINT NOT NULL DEFAULT 0, -- when the first of them was tried first; 0: there are none
	problem   TEXT NOT NULL DEFAULT '', -- why
	failures  BIGINT NOT NULL DEFAULT 0, -- in a row
	lost      BIGINT NOT NULL DEFAULT 0,
	delivered BIGINT NOT NULL DEFAULT 0, -- last
	paused    BOOLEAN NOT NULL DEFAULT FALSE,
	due       BIGINT NOT NULL DEFAULT 0, -- when one that is held is tried next; 0: there are none
	rest      BIGINT NOT NULL DEFAULT 0, -- no event behind reached is sent before
	holder    TEXT NOT NULL DEFAULT '', -- who delivers
	leased    BIGINT NOT NULL DEFAULT 0, -- and until when, unless he says otherwise
	PRIMARY KEY (tenant, name)
);
