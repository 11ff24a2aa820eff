-- What was done of requests with many changes, so that one that is sent again is answered as before.
CREATE TABLE requests (
	tenant  TEXT NOT NULL,
	id      TEXT NOT NULL, -- as the caller calls it
	line    INTEGER NOT NULL, -- the first of this part, from 0
	lines   INTEGER NOT NULL, -- of this part
	removed INTEGER NOT NULL, -- domains that it removed so far
	begun   INTEGER NOT NULL, -- with its first part
	answers BLOB NOT NULL,
	PRIMARY KEY (tenant, id, line)
) STRICT, WITHOUT ROWID;
CREATE INDEX requests_begun ON requests (begun);
