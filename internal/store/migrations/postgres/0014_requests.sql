-- What was done of requests with many changes, so that one that is sent again is answered as before.
CREATE TABLE requests (
	tenant  TEXT COLLATE "C" NOT NULL,
	id      TEXT COLLATE "C" NOT NULL, -- as the caller calls it
	line    BIGINT NOT NULL, -- the first of this part, from 0
	lines   BIGINT NOT NULL, -- of this part
	removed BIGINT NOT NULL, -- domains that it removed so far
	begun   BIGINT NOT NULL, -- with its first part
	answers BYTEA NOT NULL,
	PRIMARY KEY (tenant, id, line)
);
CREATE INDEX requests_begun ON requests (begun);
