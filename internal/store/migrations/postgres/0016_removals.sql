-- How many domains tenants removed without a confirmation, by minutes.
CREATE TABLE removals (
	tenant TEXT COLLATE "C" NOT NULL,
	began  BIGINT NOT NULL, -- the minute
	count  BIGINT NOT NULL,
	owned  BIGINT NOT NULL, -- domains that the tenant had when that was looked at; 0: it was not
	PRIMARY KEY (tenant, began)
);
