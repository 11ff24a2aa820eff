-- Whose first certificate an order was for; '': it is counted for no tenant.
ALTER TABLE journal ADD COLUMN tenant TEXT NOT NULL DEFAULT '';
-- Writes to DNS of tenants whose writes are limited, by quarters of an hour.
CREATE TABLE dns_writes (
	tenant TEXT COLLATE "C" NOT NULL,
	began  BIGINT NOT NULL, -- the quarter
	count  BIGINT NOT NULL,
	PRIMARY KEY (tenant, began)
);

-- Up to which change it is not known any more what was deleted: all nodes knew it.
ALTER TABLE versions ADD COLUMN dropped BIGINT NOT NULL DEFAULT 0;
