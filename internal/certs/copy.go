package certs

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/stspub/stspub/internal/store"
)

const (
	// copyMagic begins a copy, and changes with its form.
	copyMagic = "stspub certificates 1\n"
	// copyEvery is how often it is looked whether a new copy is due. It is also longer than a certificate that is in the
	// store may take to be in memory: a copy promises only what was in the store one look before.
	copyEvery = time.Minute
	// copyPart of the certificates have to have changed for a new copy, and at least copyFew.
	copyPart = 100
	copyFew  = 100
	// copyKeys is how long the key of a removed name may stay in a copy.
	copyKeys = time.Hour
	maxBlock = 4 << 20 // bytes that are read at once
)

// A copy is a file of this process, beside its store or in a folder of its node, with all certificates as they lie in memory:
// to read it is to start, where a million rows would take a minute. It is never the truth. The store knows the mark in it, and
// what has changed since; a copy that is damaged, of another store or not sealed as it should be is removed, and the store is
// read instead.
type copyHeader struct {
	Mark        string     `json:"mark"` // see store.Store's MarkCertificates
	Sealed      string     `json:"sealed"`
	Count       int        `json:"count"`  // about
	Chains      [][][]byte `json:"chains"` // of the families
	Patterns    [][]byte   `json:"patterns"`
	Authorities []string   `json:"authorities"`
}

// readCopy fills an empty memory from the file at path, and returns the copy's mark. After an error the memory is of no use.
func (k *Keeper) readCopy(m *memory, path string) (mark string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<20)
	magic := make([]byte, len(copyMagic))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != copyMagic {
		return "", errors.New("not a copy of certificates, or in another version's form")
	}
	var header copyHeader
	text, _, err := k.readBlock(r, "", "header")
	if err == nil {
		err = json.Unmarshal(text, &header)
	}
	if err != nil {
		return "", fmt.Errorf("header: %w", err)
	}
	if header.Sealed != k.keys.ID() {
		return "", errors.New("it is not sealed with the newest key")
	}
	var chains []uint16
	if len(header.Patterns) != len(header.Chains) {
		return "", errBlock
	}
	for i, chain := range header.Chains {
		n, room := m.familyOf(chain, header.Patterns[i])
		if !room || !bytes.Equal(m.family(n).pattern, header.Patterns[i]) {
			return "", errBlock
		}
		chains = append(chains, n)
	}
	var authorities []uint8
	for _, name := range header.Authorities {
		authorities = append(authorities, m.authorityOf(name))
	}
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	// More do not fit into the file, whatever it says.
	m.reserve(max(0, min(header.Count, int(info.Size()/(metaSize+ownerSize+scalarSize)))))
	for i := 0; ; i++ {
		label := header.Mark + "/" + strconv.Itoa(i)
		meta, count, err := k.readBlock(r, header.Sealed, label)
		if err != nil {
			return "", fmt.Errorf("block %d: %w", i, err)
		}
		if count == 0 { // the end
			return header.Mark, nil
		}
		bodies, _, err := k.readBlock(r, header.Sealed, label+"/bodies")
		if err == nil {
			err = m.take(meta, bodies, count, chains, authorities)
		}
		if err != nil {
			return "", fmt.Errorf("block %d: %w", i, err)
		}
	}
}

// readBlock reads what writeBlock wrote.
func (k *Keeper) readBlock(r io.Reader, key, label string) (content []byte, count int, err error) {
	var head [12]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, 0, errBlock
	}
	size := binary.LittleEndian.Uint32(head[:])
	if size > maxBlock {
		return nil, 0, errBlock
	}
	content = make([]byte, size)
	if _, err := io.ReadFull(r, content); err != nil {
		return nil, 0, errBlock
	}
	if crc32.Checksum(content, crc32.MakeTable(crc32.Castagnoli)) != binary.LittleEndian.Uint32(head[8:]) {
		return nil, 0, errBlock
	}
	content, err = k.keys.Open(key, "copy/"+label, content)
	return content, int(binary.LittleEndian.Uint32(head[4:])), err
}

// writeBlock writes the length of what follows, a count, a checksum, and the content.
func (k *Keeper) writeBlock(w io.Writer, sealed bool, label string, content []byte, count int) error {
	if sealed {
		_, content = k.keys.Seal("copy/"+label, content)
	}
	var head [12]byte
	binary.LittleEndian.PutUint32(head[:], uint32(len(content)))
	binary.LittleEndian.PutUint32(head[4:], uint32(count))
	binary.LittleEndian.PutUint32(head[8:], crc32.Checksum(content, crc32.MakeTable(crc32.Castagnoli)))
	if _, err := w.Write(head[:]); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}

// writeCopy replaces the copy by one that has at least all changes up to a number of the store's LastChange.
func (k *Keeper) writeCopy(ctx context.Context, change int64) error {
	mark := rand.Text()
	if err := k.store.MarkCertificates(ctx, mark, change); err != nil {
		return fmt.Errorf("copy certificates: %w", err)
	}
	// A crash leaves a file of that name behind, which the next start removes.
	part := k.copyPath + ".new"
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("copy certificates: %w", err)
	}
	err = k.writeCopyTo(ctx, f, mark)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(part, k.copyPath)
	}
	if err != nil {
		return fmt.Errorf("copy certificates: %w", errors.Join(err, os.Remove(part)))
	}
	// Without it a crash of the machine may leave the old copy, which the store still knows.
	if dir, err := os.Open(filepath.Dir(k.copyPath)); err == nil {
		_ = dir.Sync()
		_ = dir.Close()
	}
	return nil
}

func (k *Keeper) writeCopyTo(ctx context.Context, f io.Writer, mark string) error {
	w := bufio.NewWriterSize(f, 1<<20)
	if _, err := w.WriteString(copyMagic); err != nil {
		return err
	}
	// What is added to the tables from here on belongs to changes that the copy does not promise.
	families, authorities := *k.memory.families.Load(), *k.memory.authorities.Load()
	header := copyHeader{Mark: mark, Sealed: k.keys.ID(), Count: k.memory.len(), Authorities: authorities}
	for _, f := range families {
		header.Chains, header.Patterns = append(header.Chains, f.issuers), append(header.Patterns, f.pattern)
	}
	text, err := json.Marshal(header)
	if err == nil {
		err = k.writeBlock(w, false, "header", text, 1)
	}
	if err != nil {
		return err
	}
	i := 0
	label := func() string { return mark + "/" + strconv.Itoa(i) }
	err = k.memory.blocks(len(families), len(authorities), func(meta, bodies []byte, count int) error {
		err := errors.Join(ctx.Err(), k.writeBlock(w, k.keys != nil, label(), meta, count))
		if err == nil {
			err = k.writeBlock(w, k.keys != nil, label()+"/bodies", bodies, count)
		}
		i++
		return err
	})
	if err == nil {
		err = k.writeBlock(w, k.keys != nil, label(), nil, 0)
	}
	if err != nil {
		return err
	}
	return w.Flush()
}

// RunCopies keeps a copy of all certificates in [Config.Copy], so that the next start is quick, until ctx ends. It writes
// one when enough has changed, and soon after a name was removed, whose key is to be nowhere.
func (k *Keeper) RunCopies(ctx context.Context) error {
	if k.copyPath == "" {
		return nil
	}
	tick := time.NewTicker(copyEvery)
	defer tick.Stop()
	var before int64 // the store's last change, one look ago
	known := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now, err := k.store.LastChange(ctx)
		if err == nil && known && k.copyDue(time.Now()) {
			err = k.copyUpTo(ctx, before)
		}
		if err != nil && ctx.Err() == nil {
			k.log.Warn("certificates not copied; the next start may be slow", "err", err)
		}
		before, known = now, err == nil
	}
}

// LastCopy writes a copy if one is due. Call it when nothing changes certificates any more.
func (k *Keeper) LastCopy(ctx context.Context) error {
	if k.copyPath == "" || !k.copyDue(time.Now().Add(copyKeys)) {
		return nil
	}
	now, err := k.store.LastChange(ctx)
	if err != nil {
		return fmt.Errorf("copy certificates: %w", err)
	}
	return k.copyUpTo(ctx, now)
}

func (k *Keeper) copyUpTo(ctx context.Context, change int64) error {
	if k.shared { // what others did since may be missing in memory
		change = min(change, k.refreshed.Load())
	}
	changed, removed := k.memory.changed.Load(), k.memory.removed.Swap(0)
	if err := k.writeCopy(ctx, change); err != nil {
		k.memory.removed.CompareAndSwap(0, removed)
		return err
	}
	k.memory.changed.Add(-changed)
	return nil
}

// copyDue says whether so much changed since the last copy that a new one is worth it.
func (k *Keeper) copyDue(now time.Time) bool {
	if since := k.memory.removed.Load(); since != 0 && now.Sub(time.Unix(since, 0)) >= copyKeys {
		return true
	}
	return k.memory.changed.Load() > int64(max(copyFew, k.memory.len()/copyPart))
}

// load fills a new memory from the copy and what changed since in the store, or from the store alone.
func (k *Keeper) load(ctx context.Context) (*memory, error) {
	if k.copyPath != "" {
		// There are keys in it too, if writing it was interrupted.
		if err := os.Remove(k.copyPath + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			k.log.Warn("left a part of a copy of the certificates", "file", k.copyPath+".new", "err", err)
		}
		m := newMemory()
		err := k.loadCopy(ctx, m)
		if err == nil {
			m.changed.Store(0)
			return m, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		if !errors.Is(err, fs.ErrNotExist) {
			// There are keys in it, maybe open ones of before the store was sealed.
			k.log.Info("removed the copy of the certificates, and reading the store", "file", k.copyPath, "err", errors.Join(err, os.Remove(k.copyPath)))
		}
	}
	m := newMemory()
	if err := k.leaveOut(k.store.EachCertificate(ctx, k.loader(m))); err != nil {
		return nil, fmt.Errorf("load certificates: %w", err)
	}
	return m, nil
}

func (k *Keeper) loadCopy(ctx context.Context, m *memory) error {
	mark, err := k.readCopy(m, k.copyPath)
	if err != nil {
		return err
	}
	return k.leaveOut(k.store.CertificatesSince(ctx, mark, k.loader(m)))
}

// leaveOut says which certificates of the store are damaged, and returns any other error: they are ordered anew when their
// names are wanted.
func (k *Keeper) leaveOut(err error) error {
	d, damaged := errors.AsType[*store.DamagedError](err)
	if !damaged {
		return err
	}
	k.log.Error("left out damaged certificates of the store", "count", len(d.Names), "err", d)
	for _, name := range d.Names {
		k.log.Warn("left out a damaged certificate", "domain", name)
	}
	return nil
}
