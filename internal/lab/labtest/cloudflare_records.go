package labtest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stspub/stspub/internal/lab"
)

// recordBody is what requests say of a record. A pointer that is nil was not said.
type recordBody struct {
	ID      string  `json:"id"` // in a batch
	Name    *string `json:"name"`
	Type    *string `json:"type"`
	Content *string `json:"content"`
	TTL     *int    `json:"ttl"`
	Proxied *bool   `json:"proxied"`
}

// batchBody is carried out in the order of its fields, all or nothing.
type batchBody struct {
	Deletes []recordBody `json:"deletes"`
	Patches []recordBody `json:"patches"`
	Puts    []recordBody `json:"puts"`
	Posts   []recordBody `json:"posts"`
}

// write changes a zone. What it did is undone by the caller when it returns an error.
func (c *Cloudflare) write(z *cloudflareZone, r *http.Request, id string) (any, *apiError) {
	var body recordBody
	var batch batchBody
	var target any = &body
	if id == "batch" {
		target = &batch
	}
	if r.Method != http.MethodDelete {
		if err := json.NewDecoder(r.Body).Decode(target); err != nil {
			return nil, &apiError{status: http.StatusBadRequest, Code: 9207, Message: "Request body is invalid."}
		}
	}
	switch {
	case r.Method == http.MethodPost && id == "batch":
		return c.batch(z, batch)
	case r.Method == http.MethodPost && id == "":
		return c.create(z, body)
	case r.Method == http.MethodPatch && id != "":
		return c.update(z, id, body, false)
	case r.Method == http.MethodPut && id != "":
		return c.update(z, id, body, true)
	case r.Method == http.MethodDelete && id != "":
		return c.remove(z, id)
	}
	return nil, &apiError{status: http.StatusMethodNotAllowed, Code: 10405, Message: "Method not allowed for this authentication scheme"}
}

func (c *Cloudflare) batch(z *cloudflareZone, b batchBody) (any, *apiError) {
	result := map[string][]any{"deletes": {}, "patches": {}, "puts": {}, "posts": {}}
	for _, step := range []struct {
		name   string
		bodies []recordBody
		do     func(recordBody) (any, *apiError)
	}{
		{"deletes", b.Deletes, func(r recordBody) (any, *apiError) { return c.remove(z, r.ID) }},
		{"patches", b.Patches, func(r recordBody) (any, *apiError) { return c.update(z, r.ID, r, false) }},
		{"puts", b.Puts, func(r recordBody) (any, *apiError) { return c.update(z, r.ID, r, true) }},
		{"posts", b.Posts, func(r recordBody) (any, *apiError) { return c.create(z, r) }},
	} {
		for _, body := range step.bodies {
			did, err := step.do(body)
			if err != nil {
				return nil, err
			}
			result[step.name] = append(result[step.name], did)
		}
	}
	return result, nil
}

func (c *Cloudflare) create(z *cloudflareZone, b recordBody) (any, *apiError) {
	rec, err := apply(cloudflareRecord{}, b, z)
	if err == nil {
		err = check(z, rec)
	}
	if err == nil && len(z.records) >= c.quota {
		err = &apiError{status: http.StatusBadRequest, Code: 81045, Message: "Record quota exceeded."}
	}
	if err != nil {
		return nil, err
	}
	rec = c.newRecord(z, rec)
	z.records = append(z.records, rec)
	return rec, nil
}

// update changes the fields that are said; with whole (PUT) the others go back to their defaults.
func (c *Cloudflare) update(z *cloudflareZone, id string, b recordBody, whole bool) (any, *apiError) {
	i := slices.IndexFunc(z.records, func(r cloudflareRecord) bool { return r.ID == id })
	if i < 0 {
		return nil, notThere()
	}
	old := z.records[i]
	if whole {
		old = cloudflareRecord{ID: old.ID, CreatedOn: old.CreatedOn, ZoneID: old.ZoneID, ZoneName: old.ZoneName}
	}
	rec, err := apply(old, b, z)
	if err == nil {
		err = check(z, rec)
	}
	if err != nil {
		return nil, err
	}
	rec.Modified = time.Now().UTC()
	z.records[i] = rec
	return rec, nil
}

func (c *Cloudflare) remove(z *cloudflareZone, id string) (any, *apiError) {
	i := slices.IndexFunc(z.records, func(r cloudflareRecord) bool { return r.ID == id })
	if i < 0 {
		return nil, notThere()
	}
	z.records = slices.Delete(z.records, i, i+1)
	return map[string]string{"id": id}, nil
}

func notThere() *apiError {
	return &apiError{status: http.StatusNotFound, Code: 81044, Message: "Record does not exist."}
}

func invalid(code int, message string) *apiError {
	return &apiError{
		status: http.StatusBadRequest, Code: 1004, Message: "DNS Validation Error",
		Chain: []*apiError{{Code: code, Message: message}},
	}
}

// apply puts what a request says into a record.
func apply(rec cloudflareRecord, b recordBody, z *cloudflareZone) (cloudflareRecord, *apiError) {
	if b.Name != nil {
		rec.Name = wholeName(*b.Name, z.Name)
	}
	if b.Type != nil {
		rec.Type = *b.Type
	}
	if b.Content != nil {
		rec.Content = *b.Content
	}
	if b.TTL != nil {
		rec.TTL = *b.TTL
	}
	rec.TTL = cmp.Or(rec.TTL, 1)
	switch {
	case rec.Name == "":
		return rec, invalid(9000, "DNS name is invalid.")
	case rec.Type == "":
		return rec, invalid(9004, "DNS record type is invalid.")
	case rec.Content == "":
		return rec, invalid(9020, "Content for "+rec.Type+" record is invalid.")
	case rec.TTL != 1 && (rec.TTL < 60 || rec.TTL > 86400):
		return rec, invalid(9021, "Invalid TTL. Must be between 60 and 86400 seconds, or 1 for Automatic.")
	}
	return rec, nil
}

// wholeName takes a name as whole if it ends with the zone's, else as relative.
func wholeName(name, zone string) string {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if name == "@" {
		return zone
	}
	if name == "" || name == zone || strings.HasSuffix(name, "."+zone) {
		return name
	}
	return name + "." + zone
}

// check holds a new or changed record against the others of its name. A CNAME and TXT records get on with each other.
func check(z *cloudflareZone, rec cloudflareRecord) *apiError {
	address := func(typ string) bool { return typ == "A" || typ == "AAAA" }
	for _, other := range z.records {
		if other.ID == rec.ID || other.Name != rec.Name {
			continue
		}
		conflict := func(code int, message string) *apiError {
			return &apiError{status: http.StatusBadRequest, Code: code, Message: message}
		}
		switch {
		case other.Type == rec.Type && unquoted(other) == unquoted(rec):
			return conflict(81058, "An identical record already exists.")
		case rec.Type == "CNAME" && (other.Type == "CNAME" || address(other.Type)):
			return conflict(81053, "An A, AAAA, or CNAME record with that host already exists.")
		case address(rec.Type) && other.Type == "CNAME":
			return conflict(81054, "A CNAME record with that host already exists.")
		case (rec.Type == "NS") != (other.Type == "NS"):
			return conflict(81056, "NS records with that host already exist.")
		}
	}
	return nil
}

func (c *Cloudflare) newRecord(z *cloudflareZone, rec cloudflareRecord) cloudflareRecord {
	rec.ID, rec.ZoneID, rec.ZoneName = c.newID(), z.ID, z.Name
	rec.CreatedOn = time.Now().UTC()
	rec.Modified = rec.CreatedOn
	return rec
}

// unquoted is the content without quotes around it.
func unquoted(rec cloudflareRecord) string {
	if rec.Type == "TXT" && len(rec.Content) > 1 && strings.HasPrefix(rec.Content, `"`) && strings.HasSuffix(rec.Content, `"`) {
		return rec.Content[1 : len(rec.Content)-1]
	}
	return rec.Content
}

// publish has the DNS server answer what the zone holds; a CNAME hides all else. The caller holds mu.
func (c *Cloudflare) publish(z *cloudflareZone) {
	var text strings.Builder
	for _, rec := range z.records {
		hidden := slices.ContainsFunc(z.records, func(o cloudflareRecord) bool { return o.Name == rec.Name && o.Type == "CNAME" })
		if hidden && rec.Type != "CNAME" {
			continue
		}
		content, ttl := rec.Content, rec.TTL
		switch {
		case rec.Type == "TXT" && !strings.HasPrefix(content, `"`):
			content = strconv.Quote(content)
		case rec.Type == "CNAME":
			content = strings.TrimSuffix(content, ".") + "."
		}
		if ttl == 1 {
			ttl = 300
		}
		fmt.Fprintf(&text, "%s. %d IN %s %s\n", rec.Name, ttl, rec.Type, content)
	}
	if err := c.DNS.AddZone(lab.Zone{Name: z.Name, Text: text.String()}); err != nil {
		c.t.Errorf("serve zone %s: %v", z.Name, err)
	}
}
