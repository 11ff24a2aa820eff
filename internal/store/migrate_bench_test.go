package store

import (
	"context"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// used is the processor time of this process.
func used(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkMigrate100k brings a store of the first version up to this one, with 100,000 live domains and their certificates
// of 3 KB, as a start does: all steps in one transaction. It logs the processor time of each.
func BenchmarkMigrate100k(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		path := filepath.Join(b.TempDir(), "stspub.db")
		db, err := openPool(path, "_txlock=immediate&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)"+
			"&_pragma=foreign_keys(1)&_pragma=secure_delete(1)&_pragma=journal_size_limit(67108864)", 1)
		if err != nil {
			b.Fatal(err)
		}
		s := &SQLite{path: path}
		s.writer.DB = db
		s.init(s, nil)
		steps, err := fs.Sub(migrations, "migrations/sqlite")
		if err != nil {
			b.Fatal(err)
		}
		files, err := fs.Glob(steps, "*.sql")
		if err != nil {
			b.Fatal(err)
		}
		take := func(ctx context.Context, tx transaction, file string) {
			before, begun := used(b), time.Now()
			if err := takeStep(ctx, tx, steps, strings.TrimSuffix(file, ".sql")); err != nil {
				b.Fatal(file, err)
			}
			b.Logf("%-32s CPU %6.2f s, %6.2f s", file, (used(b) - before).Seconds(), time.Since(begun).Seconds())
		}
		err = s.write(b.Context(), "", func(ctx context.Context, tx transaction) error {
			take(ctx, tx, files[0])
			return tx.script(ctx, firstVersion)
		})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		before, begun := used(b), time.Now()
		err = s.write(b.Context(), "", func(ctx context.Context, tx transaction) error {
			for _, file := range files[1:] {
				take(ctx, tx, file)
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Logf("all, with the commit: CPU %.2f s, %.2f s", (used(b) - before).Seconds(), time.Since(begun).Seconds())
		b.ReportMetric((used(b) - before).Seconds(), "cpu-s/op")
		b.StopTimer()
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
		begun, before = time.Now(), used(b)
		opened, err := OpenSQLite(b.Context(), path)
		if err != nil {
			b.Fatal(err)
		}
		b.Logf("the next start: CPU %.2f s, %.2f s", (used(b) - before).Seconds(), time.Since(begun).Seconds())
		if err := opened.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// firstVersion fills the tables of the first step.
const firstVersion = `
INSERT INTO mxsets (tenant, name, owner, mode, max_age, mx) VALUES ('default', 'eu', 'file', 'enforce', 604800, '["mx1.example.net"]');
WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99999)
INSERT INTO domains (name, tenant, mxset, publish, account, owner, adopt, declared_adopt, added, due, version, served, record, zone,
	id, step, checked, since)
SELECT printf('customer%06d.example', i), 'default', 'eu', 'alias', 'main', 'file', 0, 0, 1, 1 + i, i,
	'version: STSv1' || char(13, 10) || 'mode: enforce' || char(13, 10) || 'max_age: 604800' || char(13, 10) || 'mx: mx1.example.net',
	printf('abcdefghijklmnop%010d.d.default.sts.example.com', i), 'sts.example.com', printf('20261101000000%08x', i), 'live', 1, 1 FROM n;
INSERT INTO certificates (name, private_key, chain, not_before, not_after)
SELECT 'mta-sts.' || name, randomblob(138), randomblob(3000), 1, 1 FROM domains;
INSERT INTO history (name, text, by_foreign, since, until) SELECT name, served, 0, 1, 0 FROM domains;
INSERT INTO ids (id, record, text, intended, verified) SELECT id, record, served, 1, 1 FROM domains;
UPDATE versions SET last = 100000;
`
