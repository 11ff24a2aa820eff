-- A name whose last order failed for a fault of the authority, or of ours, is not to blame for it.
ALTER TABLE orders ADD COLUMN outage INTEGER NOT NULL DEFAULT 0;
-- When the certificate is planned to be renewed, so that no restart draws another time; 0: not known.
ALTER TABLE certificates ADD COLUMN renew INTEGER NOT NULL DEFAULT 0;
