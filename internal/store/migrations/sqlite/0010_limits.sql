-- Whose first certificate an order was for; '': it is counted for no tenant.
ALTER TABLE journal ADD COLUMN tenant TEXT NOT NULL DEFAULT '';
-- Writes to DNS of tenants whose writes are limited, by quarters of an hour. A quarter that counts no more goes with the
-- next write of its tenant, so there are about a hundred rows for each.
CREATE TABLE dns_writes (
	tenant TEXT NOT NULL,
	began  INTEGER NOT NULL, -- the quarter
	count  INTEGER NOT NULL,
	PRIMARY KEY (tenant, began)
) STRICT, WITHOUT ROWID;

-- Up to which change it is not known any more what was deleted: all nodes knew it.
ALTER TABLE versions ADD COLUMN dropped INTEGER NOT NULL DEFAULT 0;
