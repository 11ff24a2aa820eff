-- Which write a certificate is from, so that who keeps a copy of all of them can ask for what changed since.
ALTER TABLE certificates ADD COLUMN change INTEGER NOT NULL DEFAULT 0; -- versions.last of its last write
CREATE INDEX certificates_change ON certificates (change);
CREATE TABLE dropped_certificates (
	name   TEXT NOT NULL PRIMARY KEY,
	change INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE certificate_marks ( -- the copies
	seq    INTEGER PRIMARY KEY AUTOINCREMENT,
	mark   TEXT NOT NULL UNIQUE, -- at random
	change INTEGER NOT NULL -- all up to it are in the copy
) STRICT;

-- The id of the key that private_key and value are sealed with; '': they are not.
ALTER TABLE certificates ADD COLUMN sealed TEXT NOT NULL DEFAULT '';
ALTER TABLE key_values ADD COLUMN sealed TEXT NOT NULL DEFAULT '';
-- The keys that some row may be sealed with, '' among them while some row may not be sealed at all.
CREATE TABLE seals (
	id    TEXT NOT NULL PRIMARY KEY,
	proof BLOB NOT NULL -- sealed with it
) STRICT, WITHOUT ROWID;
INSERT INTO seals (id, proof) VALUES ('', x'');
