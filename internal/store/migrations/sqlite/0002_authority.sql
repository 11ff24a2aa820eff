-- Which [acme.NAME] a certificate came from; '' where that is not known.
ALTER TABLE certificates ADD COLUMN authority TEXT NOT NULL DEFAULT '';
