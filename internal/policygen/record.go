package policygen

import (
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"time"
)

// recordVersion is what a TXT record of MTA-STS begins with. RFC 8461, Section 3.1.
const recordVersion = "v=STSv1"

// maxIDLength is the length of the longest id. RFC 8461, Section 3.1.
const maxIDLength = 32

// IsSTSv1 reports whether a TXT at an _mta-sts name means to be a record of MTA-STS version 1, well-formed or not. Any
// other TXT is a stranger's, and not ours to touch.
//
// RFC 8461, Section 3.1, makes senders drop what does not begin with "v=STSv1;", but its grammar allows white space before
// the semicolon, and some senders look at "v=STSv1" only. So a record counts when it begins with "v=STSv1", in exactly
// these letters, and the version ends there: "v=STSv1 ; id=1" and even "v=STSv1" alone count, as they would disturb or
// pass for ours. "v=STSv10; id=1" does not: it is another version.
func IsSTSv1(txt string) bool {
	rest, found := strings.CutPrefix(txt, recordVersion)
	return found && (rest == "" || !isAlphanumeric(rest[0]))
}

// RecordText returns the content of the TXT record for an id, to be written as one character-string. It has the form that
// all senders read: one of them looks for the literal "v=STSv1;", another joins what other strings there are.
func RecordText(id string) string { return recordVersion + "; id=" + id + ";" }

// ParseRecord returns the id of an _mta-sts TXT record, the character-strings of which are joined. RFC 8461, Section 3.1.
//
// It reads what senders read: unknown fields are skipped, of two ids the first counts, white space may stand around a
// semicolon and at the end, and semicolons may be doubled or missing at the end. Anything else is a [*FieldError] and no
// record to a sender.
func ParseRecord(txt string) (id string, err error) {
	if !IsSTSv1(txt) {
		return "", &FieldError{Field: "v", Value: txt, Why: `does not begin with "v=STSv1;"`}
	}
	version, fields, found := strings.Cut(txt, ";")
	if strings.TrimRight(version, whiteSpace) != recordVersion {
		return "", &FieldError{Field: "v", Value: txt, Why: `has no semicolon after "v=STSv1"`}
	}
	if !found {
		return "", &FieldError{Field: "id", Why: "is missing"}
	}
	for field := range strings.SplitSeq(fields, ";") {
		field = strings.Trim(field, whiteSpace)
		if field == "" {
			continue
		}
		name, value, err := parseRecordField(field)
		if err != nil {
			return "", err
		}
		if name == "id" && id == "" {
			id = value
		}
	}
	if id == "" {
		return "", &FieldError{Field: "id", Why: "is missing"}
	}
	return id, nil
}

func parseRecordField(field string) (name, value string, err error) {
	name, value, found := strings.Cut(field, "=")
	switch {
	case !found:
		return "", "", &FieldError{Field: "field", Value: field, Why: "has no equals sign; write name=value"}
	case !isExtensionName(name):
		return "", "", &FieldError{
			Field: "field", Value: field,
			Why: "has a bad name; up to 32 letters, digits, and _ - . inside, no space before the equals sign",
		}
	case name == "id":
		return name, value, checkID(value)
	case value == "" || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r == '=' || r > '~' }):
		return "", "", &FieldError{
			Field: "field", Value: field,
			Why: "has a bad value; at least one printable ASCII character, no space and no equals sign",
		}
	}
	return name, value, nil
}

func checkID(id string) error {
	switch {
	case id == "":
		return &FieldError{Field: "id", Why: "is empty; 1 to 32 letters and digits"}
	case len(id) > maxIDLength:
		return &FieldError{Field: "id", Value: id, Why: fmt.Sprintf("has %d characters; 1 to %d", len(id), maxIDLength)}
	}
	for i := range len(id) {
		if !isAlphanumeric(id[i]) {
			return &FieldError{Field: "id", Value: id, Why: "has other characters than letters and digits"}
		}
	}
	return nil
}

// The form of our ids: time, then random octets in hex.
const (
	idTimeLayout   = "20060102150405"
	idRandomOctets = 4
)

// NewID returns a new id: now in UTC as YYYYMMDDhhmmss, then 8 lower-case hex digits read from random, which is
// crypto/rand.Reader in earnest. RFC 8461, Section 3.1, asks no more of an id than that it is never used for two policies.
// The time makes it readable and lets it survive the loss of the store; the random part keeps two ids of one second apart.
// It fails when random does, or for years that do not have four digits.
func NewID(now time.Time, random io.Reader) (string, error) {
	now = now.UTC()
	if now.Year() < 0 || now.Year() > 9999 {
		return "", fmt.Errorf("make policy id: year %d has not four digits", now.Year())
	}
	var b [idRandomOctets]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("make policy id: read random octets: %w", err)
	}
	return now.Format(idTimeLayout) + hex.EncodeToString(b[:]), nil
}

// IDTime returns when an id of [NewID] was made, in whole seconds; for any other it is the zero time.
func IDTime(id string) time.Time {
	if len(id) != len(idTimeLayout)+2*idRandomOctets {
		return time.Time{}
	}
	made, random := id[:len(idTimeLayout)], id[len(idTimeLayout):]
	t, err := time.Parse(idTimeLayout, made)
	if _, other := hex.DecodeString(random); err != nil || other != nil || random != strings.ToLower(random) {
		return time.Time{}
	}
	return t
}

// whiteSpace is WSP of RFC 5234.
const whiteSpace = " \t"

func isAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

// isExtensionName reports whether s is sts-ext-name or sts-policy-ext-name of RFC 8461, which are alike.
func isExtensionName(s string) bool {
	if s == "" || len(s) > 32 || !isAlphanumeric(s[0]) {
		return false
	}
	for i := range len(s) {
		if !isAlphanumeric(s[i]) && !strings.ContainsRune("_-.", rune(s[i])) {
			return false
		}
	}
	return true
}
