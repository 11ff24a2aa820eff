-- Events that were forgotten for their age before a webhook took them.
ALTER TABLE webhooks ADD COLUMN forgotten BIGINT NOT NULL DEFAULT 0;
