-- What the API declares: MX sets with their roll-out, accounts, and claims to domains.
ALTER TABLE mxsets ADD COLUMN rollout BIGINT NOT NULL DEFAULT 0; -- microseconds
ALTER TABLE domains ADD COLUMN released BOOLEAN NOT NULL DEFAULT FALSE; -- its tenant lets another one have it

-- A tenant's domains by name, page by page; with the rest of it they are counted.
CREATE INDEX domains_tenant ON domains (tenant, name, owner, removed);
CREATE INDEX domains_step ON domains (tenant, step, name);
CREATE INDEX domains_fault ON domains (tenant, name) WHERE fault = TRUE;
-- Who needs an account, and who a shared record.
CREATE INDEX domains_account ON domains (tenant, account, removed) WHERE account <> '';
CREATE INDEX domains_sharing ON domains (tenant, mxset) WHERE publish = 'shared' AND removed = 0;

CREATE TABLE accounts (
	tenant   TEXT COLLATE "C" NOT NULL,
	name     TEXT COLLATE "C" NOT NULL,
	provider TEXT NOT NULL,
	settings BYTEA NOT NULL, -- with the credentials
	sealed   TEXT NOT NULL, -- the id of the key that settings are sealed with; '': they are not
	PRIMARY KEY (tenant, name)
);

-- Domains that tenants want, and have not proven to be theirs. Several may want the same one.
CREATE TABLE claims (
	tenant  TEXT COLLATE "C" NOT NULL,
	name    TEXT COLLATE "C" NOT NULL,
	mxset   TEXT COLLATE "C" NOT NULL,
	publish TEXT NOT NULL,
	account TEXT NOT NULL,
	adopt   BOOLEAN NOT NULL,
	tlsrpt  TEXT NOT NULL,
	token   TEXT NOT NULL, -- what the customer may put into DNS as proof
	created BIGINT NOT NULL,
	expires BIGINT NOT NULL,
	due     BIGINT NOT NULL, -- when it is looked at next
	looked  BIGINT NOT NULL DEFAULT 0,
	looks   BIGINT NOT NULL DEFAULT 0,
	reason  TEXT NOT NULL DEFAULT '', -- why it is not proven
	PRIMARY KEY (tenant, name)
);
CREATE INDEX claims_due ON claims (due);
CREATE INDEX claims_expires ON claims (expires);
