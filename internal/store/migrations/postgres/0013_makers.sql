-- Which token a token was made with; '': with none, on the machine itself.
ALTER TABLE tokens ADD COLUMN maker TEXT COLLATE "C" NOT NULL DEFAULT '';
CREATE INDEX tokens_maker ON tokens (maker) WHERE maker <> '';
