-- What stands for an account where it is to change only as it was read: hex digits at random, others with each change.
ALTER TABLE accounts ADD COLUMN version TEXT NOT NULL DEFAULT '';
UPDATE accounts SET version = lower(hex(randomblob(16)));
