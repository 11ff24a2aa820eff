-- Whether some node was passed over that may serve another text.
ALTER TABLE domains ADD COLUMN tainted BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX domains_tainted ON domains (due) WHERE tainted;
-- Since when the text is seen live at all nodes; 0: it is not.
ALTER TABLE domains ADD COLUMN live BIGINT NOT NULL DEFAULT 0;
