package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"strings"
)

// Copy writes everything that one store holds into another, which must hold nothing: all of it or nothing. Then it reads
// both again and compares the number of rows and a checksum of each table, and opens every secret. What nodes are running
// and what is claimed is not copied. Nobody else may use either store meanwhile.
//
// Secrets stay sealed as they are, so to must have been opened with the same keys. Tell is called now and then with what is
// done, "copy domains" or "verify domains", and how many rows that were so far.
func Copy(ctx context.Context, from, to Store, tell func(doing string, rows int)) error {
	source, ok := from.(interface{ whole() *tables })
	target, ok2 := to.(interface{ whole() *tables })
	if !ok || !ok2 {
		return errors.New("copy store: it is none of an engine")
	}
	c := &copier{source.whole(), target.whole(), tell}
	if err := c.target.db.write(ctx, "copy store", c.copy); err != nil {
		return err
	}
	for _, table := range copiedTables() {
		if err := c.verify(ctx, table); err != nil {
			return fmt.Errorf("verify the copy: %w", err)
		}
	}
	if err := c.open(ctx); err != nil {
		return fmt.Errorf("verify the copy: %w", err)
	}
	return nil
}

// whole is for Copy.
func (t *tables) whole() *tables { return t }

type copier struct {
	source, target *tables
	tell           func(doing string, rows int)
}

// copiedTable is a table with its columns by what they hold.
type copiedTable struct {
	name, key                      string
	texts, numbers, truths, secret string
}

// copiedTables are all tables that are copied, in an order that references allow. Seals, versions and what belongs to
// running processes is apart.
func copiedTables() []copiedTable {
	return []copiedTable{
		{"tenants", "name", "name", "domains mxsets accounts orders writes created", "", ""},
		{"dns_writes", "tenant, began", "tenant", "began count", "", ""},
		{"removals", "tenant, began", "tenant", "began count owned", "", ""},
		{"requests", "tenant, id, line", "tenant id", "line lines removed begun", "", "answers"},
		{"tokens", "id", "id tenant role label maker", "created expires used revoked", "", "hash"},
		{"mxsets", "tenant, name", "tenant name owner mode mx", "max_age rollout", "", ""},
		{"accounts", "tenant, name", "tenant name provider sealed version", "", "", "settings"},
		{
			"claims", "tenant, name", "tenant name mxset publish account tlsrpt token reason", "created expires due looked looks",
			"adopt", "",
		},
		{
			"domains", "name", "name tenant mxset publish account owner tlsrpt served record zone id intended forced findings step " +
				"reason report_record report_zone report_text report_problem", "added removed due version change wrote settle handover " +
				"old_ttl horizon deleted away detached staged promoted since live failures checked report_wrote report_verified report_failures",
			"adopt declared_adopt dirty fresh pinned expelled fault released tainted", "",
		},
		{
			"webhooks", "tenant, name", "tenant name kinds sealed held problem",
			"created version reached since failures lost forgotten delivered due rest", "paused", "settings",
		},
		{"turns", "turn", "", "turn number", "", ""},
		{"dropped_domains", "name", "name", "change", "", ""},
		{"history", "seq", "name text", "seq since until", "by_foreign", ""},
		{"ids", "seq", "id record text", "seq intended verified", "", ""},
		{"certificates", "name", "name authority sealed", "not_before not_after renew change", "", "private_key chain"},
		{"dropped_certificates", "name", "name", "change", "", ""},
		{"certificate_marks", "seq", "mark", "seq change", "", ""},
		{"orders", "name", "name problem authority advice", "failures tried next since", "outage", ""},
		{"journal", "seq", "authority name domain reason tenant", "seq changed begun ended stopped", "exempt failed", ""},
		{"key_values", "name", "name sealed", "", "", "value"},
		{"events", "seq", "tenant kind name actor text was became", "seq at", "", ""},
	}
}

func (c copiedTable) columns() []string {
	return strings.Fields(strings.Join([]string{c.texts, c.numbers, c.truths, c.secret}, " "))
}

// each calls f for the values of every row, in the order of columns.
func (c copiedTable) each(ctx context.Context, t *tables, f func(values []any) error) error {
	scan := func(r row) ([]any, error) {
		texts, numbers := make([]string, len(strings.Fields(c.texts))), make([]int64, len(strings.Fields(c.numbers)))
		truths, secrets := make([]bool, len(strings.Fields(c.truths))), make([][]byte, len(strings.Fields(c.secret)))
		var dest []any
		dest = pointers(pointers(pointers(pointers(dest, texts), numbers), truths), secrets)
		if err := r.Scan(dest...); err != nil {
			return nil, err
		}
		return values(values(values(values(nil, storableTexts(texts)), numbers), truths), secrets), nil
	}
	return stream(ctx, t, "read "+c.name, scan, f, `SELECT `+strings.Join(c.columns(), ", ")+` FROM `+c.name+` ORDER BY `+c.key)
}

func pointers[T any](to []any, all []T) []any {
	for i := range all {
		to = append(to, &all[i])
	}
	return to
}

func values[T any](to []any, all []T) []any {
	for _, v := range all {
		to = append(to, v)
	}
	return to
}

// storableTexts are texts as every engine takes them.
func storableTexts(texts []string) []string {
	for i, s := range texts {
		texts[i] = storableText(s)
	}
	return texts
}

// copyBatch is how many rows are written at once.
const copyBatch = 1000

func (c *copier) copy(ctx context.Context, tx transaction) error {
	if err := tx.lock(ctx, lockSchema, "", false); err != nil {
		return err
	}
	// Every store begins with it; it comes from the source.
	if _, err := tx.exec(ctx, `DELETE FROM tenants WHERE name = $1`, DefaultTenant); err != nil {
		return err
	}
	for _, table := range copiedTables() {
		var some bool
		if err := tx.get(ctx, `SELECT EXISTS (SELECT 1 FROM `+table.name+`)`, nil, &some); err != nil {
			return err
		}
		if some {
			return fmt.Errorf("the store to copy to is in use, it has %s: name an empty database", table.name)
		}
	}
	if err := c.copySeals(ctx, tx); err != nil {
		return err
	}
	for _, table := range copiedTables() {
		if err := c.copyTable(ctx, tx, table); err != nil {
			return err
		}
	}
	last, err := c.source.lastChange(ctx)
	if err != nil {
		return err
	}
	if _, err := tx.exec(ctx, `UPDATE versions SET last = CAST($1 AS BIGINT), dropped = CAST($2 AS BIGINT)`, last.number, last.dropped); err != nil {
		return err
	}
	return tx.resume(ctx)
}

func (c *copier) copySeals(ctx context.Context, tx transaction) error {
	seals, err := collect(ctx, c.source, "read seals", scanSeal, querySeals)
	if err != nil {
		return err
	}
	if err := checkSeals(seals, c.target.ring); err != nil {
		return err
	}
	return tx.execMany(ctx, `INSERT INTO seals (id, proof) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING`, len(seals), func(i int) []any {
		return []any{seals[i].id, blob(seals[i].proof)}
	})
}

func (c *copier) copyTable(ctx context.Context, tx transaction, table copiedTable) error {
	columns := table.columns()
	done := 0
	var batch [][]any
	flush := func() error {
		err := tx.insert(ctx, table.name, columns, len(batch), func(i int) []any { return batch[i] })
		done += len(batch)
		batch = batch[:0]
		c.tell("copy "+table.name, done)
		return err
	}
	err := table.each(ctx, c.source, func(values []any) error {
		if batch = append(batch, values); len(batch) < copyBatch {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

// verify compares a table in both stores.
func (c *copier) verify(ctx context.Context, table copiedTable) error {
	want, rows, err := digest(ctx, table, c.source)
	if err != nil {
		return err
	}
	got, arrived, err := digest(ctx, table, c.target)
	if err != nil {
		return err
	}
	if rows != arrived {
		return fmt.Errorf("%s: %d rows of %d arrived", table.name, arrived, rows)
	}
	if want != got {
		return fmt.Errorf("%s: the %d rows are not those that were copied; does another program write to one of the stores?", table.name, rows)
	}
	c.tell("verify "+table.name, rows)
	return nil
}

// digest is a checksum of all rows.
func digest(ctx context.Context, table copiedTable, t *tables) (sum [sha256.Size]byte, rows int, err error) {
	h := sha256.New()
	err = table.each(ctx, t, func(values []any) error {
		rows++
		for _, v := range values {
			digestValue(h, v)
		}
		return nil
	})
	return [sha256.Size]byte(h.Sum(nil)), rows, err
}

func digestValue(h hash.Hash, v any) {
	var b []byte
	switch v := v.(type) {
	case string:
		b = append(binary.AppendUvarint(nil, uint64(len(v))), v...)
	case []byte:
		b = append(binary.AppendUvarint(nil, uint64(len(v))), v...)
	case int64:
		b = binary.AppendVarint(nil, v)
	case bool:
		b = []byte{0}
		if v {
			b[0] = 1
		}
	}
	_, _ = h.Write(b) // a hash takes everything
}

// open opens every secret of the copy.
func (c *copier) open(ctx context.Context) error {
	err := c.target.EachCertificate(ctx, func(Certificate) error { return nil })
	if _, damaged := errors.AsType[*DamagedError](err); damaged {
		return fmt.Errorf("%w; have stspub serve the old store, which orders another certificate, and copy it then", err)
	}
	if err != nil {
		return err
	}
	scan := func(r row) (name string, err error) {
		err = r.Scan(&name)
		return name, err
	}
	if err := stream(ctx, c.target, "read webhooks", c.target.scanWebhook, func(w Webhook) error {
		if w.Damaged {
			return fmt.Errorf("webhook %q: %w; put it again, or remove it, and copy then", w.Name, errSealed)
		}
		return nil
	}, `SELECT `+webhookColumns+` FROM webhooks`); err != nil {
		return err
	}
	return stream(ctx, c.target, "read values", scan, func(name string) error {
		_, err := c.target.Value(ctx, name)
		return err
	}, `SELECT name FROM key_values`)
}
