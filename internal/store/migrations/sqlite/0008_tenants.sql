CREATE TABLE tenants (
	name    TEXT NOT NULL PRIMARY KEY, -- LDH label; it never changes, as it is in the names of records
	domains INTEGER NOT NULL, -- how many it may have; 0: as many as it likes, here and below
	orders  INTEGER NOT NULL, -- of certificates in a day
	writes  INTEGER NOT NULL, -- to DNS in a day
	created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO tenants (name, domains, orders, writes, created)
	VALUES ('default', 0, 0, 0, CAST(unixepoch('subsec') * 1000000 AS INTEGER));

-- Tokens stay when they were revoked: whether there ever was one decides who needs one.
CREATE TABLE tokens (
	id      TEXT NOT NULL PRIMARY KEY,
	tenant  TEXT NOT NULL, -- '': of the service
	role    TEXT NOT NULL,
	label   TEXT NOT NULL,
	hash    BLOB NOT NULL, -- SHA-256 of the secret, which is random
	created INTEGER NOT NULL,
	expires INTEGER NOT NULL, -- 0: never
	used    INTEGER NOT NULL DEFAULT 0, -- to the minute
	revoked INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX tokens_tenant ON tokens (tenant, created);
