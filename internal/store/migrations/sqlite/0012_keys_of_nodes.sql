-- The ids of the keys that a node has, the newest first, with a space between; '-': it has none; '': it did not say.
ALTER TABLE nodes ADD COLUMN keys TEXT NOT NULL DEFAULT '';
