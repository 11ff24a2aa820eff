-- Orders of certificates, written before they are sent: what an authority allows is counted by it, and who has an order
-- running for a name. Rows go when they count for nothing any more.
CREATE TABLE journal (
	seq       INTEGER PRIMARY KEY, -- versions.last when it was appended
	changed   INTEGER NOT NULL, -- versions.last of the last write
	authority TEXT NOT NULL,
	name      TEXT NOT NULL,
	domain    TEXT NOT NULL, -- registered domain of name
	begun     INTEGER NOT NULL,
	exempt    INTEGER NOT NULL, -- the authority counts it against no limit
	ended     INTEGER NOT NULL DEFAULT 0, -- 0: it runs, or who ran it is gone
	failed    INTEGER NOT NULL DEFAULT 0, -- a validation failed, or may have
	stopped   INTEGER NOT NULL DEFAULT 0, -- until when the authority wants no orders; 0: it did not say
	reason    TEXT NOT NULL DEFAULT '' -- and why
) STRICT;
CREATE INDEX journal_changed ON journal (changed);

ALTER TABLE orders ADD COLUMN authority TEXT NOT NULL DEFAULT ''; -- who refused it last; '': nobody in particular
ALTER TABLE orders ADD COLUMN since INTEGER NOT NULL DEFAULT 0; -- first failure in a row
ALTER TABLE orders ADD COLUMN advice TEXT NOT NULL DEFAULT '';
