-- Which change it was that a shared record brought its domains another text. They have the version that it had, below 0, in
-- the place of the number, which so is taken when all of them are written.
CREATE TABLE turns (
	turn   INTEGER PRIMARY KEY,
	number INTEGER NOT NULL -- versions.last
) STRICT;
