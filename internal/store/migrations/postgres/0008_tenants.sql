CREATE TABLE tenants (
	name    TEXT COLLATE "C" NOT NULL PRIMARY KEY, -- LDH label; it never changes, as it is in the names of records
	domains BIGINT NOT NULL, -- how many it may have; 0: as many as it likes, here and below
	orders  BIGINT NOT NULL, -- of certificates in a day
	writes  BIGINT NOT NULL, -- to DNS in a day
	created BIGINT NOT NULL
);
INSERT INTO tenants (name, domains, orders, writes, created)
	VALUES ('default', 0, 0, 0, (extract(epoch FROM clock_timestamp()) * 1000000)::BIGINT);

-- Tokens stay when they were revoked: whether there ever was one decides who needs one.
CREATE TABLE tokens (
	id      TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	tenant  TEXT COLLATE "C" NOT NULL, -- '': of the service
	role    TEXT NOT NULL,
	label   TEXT NOT NULL,
	hash    BYTEA NOT NULL, -- SHA-256 of the secret, which is random
	created BIGINT NOT NULL,
	expires BIGINT NOT NULL, -- 0: never
	used    BIGINT NOT NULL DEFAULT 0, -- to the minute
	revoked BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX tokens_tenant ON tokens (tenant, created);
