-- Whether some node was passed over that may serve another text.
ALTER TABLE domains ADD COLUMN tainted INTEGER NOT NULL DEFAULT 0;
CREATE INDEX domains_tainted ON domains (due) WHERE tainted;
-- Since when the text is seen live at all nodes; 0: it is not.
ALTER TABLE domains ADD COLUMN live INTEGER NOT NULL DEFAULT 0;
