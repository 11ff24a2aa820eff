-- How many MX sets and accounts a tenant may have; 0: as many as one has about whom nothing is said.
ALTER TABLE tenants ADD COLUMN mxsets INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tenants ADD COLUMN accounts INTEGER NOT NULL DEFAULT 0;
