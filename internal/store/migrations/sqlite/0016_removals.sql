-- How many domains tenants removed without a confirmation, by minutes. A minute that counts no more goes with the next
-- removal of its tenant, so there are at most sixty rows for each.
CREATE TABLE removals (
	tenant TEXT NOT NULL,
	began  INTEGER NOT NULL, -- the minute
	count  INTEGER NOT NULL,
	owned  INTEGER NOT NULL, -- domains that the tenant had when that was looked at; 0: it was not
	PRIMARY KEY (tenant, began)
) STRICT, WITHOUT ROWID;
