package labtest

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/config"
)

const route53Key, route53Secret = "AKIAFAKEFAKEFAKEFAKE", "fakeRoute53SecretAccessKey0123456789abcd"

type route53API struct{}

// StartRoute53 starts a fake of Amazon Route 53's API, version 2013-04-01: signed requests (SigV4), XML, names and TXT data
// with octal escapes, lists sorted by reversed labels, and batches that are made as a whole if every deletion says
// exactly what is there. One more hosted zone of each name is private.
func StartRoute53(t testing.TB, zones ...string) *Cloud {
	t.Helper()
	return startCloud(t, route53API{}, zones)
}

func (route53API) account(string) config.Account {
	return config.Account{Provider: "route53", KeyID: route53Key, Secret: route53Secret}
}

func (route53API) writes(r *http.Request) bool { return r.Method != http.MethodGet }

func (route53API) limited(time.Duration) cloudAnswer {
	return awsRefuse(400, "Throttling", "Rate exceeded")
}

func awsRefuse(status int, code, message string) cloudAnswer {
	return cloudAnswer{status: status, body: xmlText(struct {
		XMLName xml.Name `xml:"https://route53.amazonaws.com/doc/2013-04-01/ ErrorResponse"`
		Type    string   `xml:"Error>Type"`
		Code    string   `xml:"Error>Code"`
		Message string   `xml:"Error>Message"`
		Request string   `xml:"RequestId"`
	}{Type: "Sender", Code: code, Message: message, Request: "b25f48e8"})}
}

func xmlText(v any) string {
	text, err := xml.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return xml.Header + string(text)
}

type awsSet struct {
	Name    string
	Type    string
	TTL     int
	Records []awsRecord `xml:"ResourceRecords>ResourceRecord"`
}

type awsRecord struct{ Value string }

// values are the data of the set, sorted.
func (s awsSet) values() []string {
	var out []string
	for _, r := range s.Records {
		out = append(out, r.Value)
	}
	slices.Sort(out)
	return out
}

func (s awsSet) key() string {
	labels := strings.Split(strings.TrimSuffix(s.Name, "."), ".")
	slices.Reverse(labels)
	return strings.Join(labels, "\x00") + "\x00\x00" + s.Type
}

func (route53API) handle(c *Cloud, r *http.Request, body []byte) cloudAnswer {
	if refused := awsAuth(c, r, body); refused.status != 0 {
		return refused
	}
	path := strings.TrimPrefix(r.URL.Path, "/2013-04-01/")
	if path == "hostedzonesbyname" {
		return awsZones(c, r.URL.Query().Get("dnsname"))
	}
	id, _, _ := strings.Cut(strings.TrimPrefix(path, "hostedzone/"), "/")
	i := slices.IndexFunc(c.zones, func(z *cloudZone) bool { return awsID(z) == id })
	switch {
	case i < 0:
		return awsRefuse(404, "NoSuchHostedZone", "No hosted zone found with ID: "+id)
	case r.Method == http.MethodGet:
		return awsList(c.zones[i], r)
	case r.Method == http.MethodPost:
		return awsChange(c, c.zones[i], body)
	}
	return awsRefuse(405, "MethodNotAllowed", "")
}

func awsID(z *cloudZone) string { return "Z" + strconv.Itoa(z.id) + "FAKE" }

// awsAuth makes the signature again and compares (AWS Signature Version 4).
func awsAuth(c *Cloud, r *http.Request, body []byte) cloudAnswer {
	m := regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([^/]+)/([^,]+), SignedHeaders=([^,]+), Signature=(.+)$`).
		FindStringSubmatch(r.Header.Get("Authorization"))
	switch {
	case m == nil:
		return awsRefuse(403, "MissingAuthenticationToken", "Missing Authentication Token")
	case m[1] != route53Key:
		return awsRefuse(403, "InvalidClientTokenId", "The security token included in the request is invalid.")
	case c.revoked:
		return awsRefuse(403, "AccessDenied", "User: arn:aws:iam::123456789012:user/stspub is not authorized to perform this")
	}
	scope := strings.Split(m[2], "/") // date, region, service, aws4_request
	canonical := r.Method + "\n" + r.URL.EscapedPath() + "\n" + r.URL.Query().Encode() + "\n"
	for h := range strings.SplitSeq(m[3], ";") {
		value := r.Header.Get(h)
		switch h {
		case "host":
			value = r.Host
		case "content-length":
			value = strconv.FormatInt(r.ContentLength, 10)
		}
		canonical += h + ":" + value + "\n"
	}
	canonical += "\n" + m[3] + "\n" + fmt.Sprintf("%x", sha256.Sum256(body))
	key := []byte("AWS4" + route53Secret)
	mac := func(text string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	for _, part := range scope {
		key = mac(part)
	}
	text := "AWS4-HMAC-SHA256\n" + r.Header.Get("X-Amz-Date") + "\n" + m[2] + "\n" + fmt.Sprintf("%x", sha256.Sum256([]byte(canonical)))
	if hex.EncodeToString(mac(text)) != m[4] {
		return awsRefuse(403, "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided.")
	}
	return cloudAnswer{}
}

// awsZones lists zones by name, from a name on.
func awsZones(c *Cloud, from string) cloudAnswer {
	type zone struct {
		ID      string `xml:"Id"`
		Name    string
		Private bool `xml:"Config>PrivateZone"`
	}
	var zones []zone
	for _, z := range c.zones {
		zones = append(zones, zone{"/hostedzone/" + awsID(z), z.name + ".", false}, zone{"/hostedzone/P" + awsID(z), z.name + ".", true})
	}
	key := func(name string) string { return awsSet{Name: name}.key() }
	slices.SortStableFunc(zones, func(x, y zone) int { return cmp.Compare(key(x.Name), key(y.Name)) })
	zones = slices.DeleteFunc(zones, func(z zone) bool { return key(z.Name) < key(from) })
	return cloudAnswer{status: 200, body: xmlText(struct {
		XMLName     xml.Name `xml:"https://route53.amazonaws.com/doc/2013-04-01/ ListHostedZonesByNameResponse"`
		HostedZones []zone   `xml:"HostedZones>HostedZone"`
		IsTruncated bool
		MaxItems    int
	}{HostedZones: zones, MaxItems: 100})}
}

// awsList lists record sets from a name on.
func awsList(z *cloudZone, r *http.Request) cloudAnswer {
	var sets []awsSet
	for _, s := range awsSets(z) {
		if s.key() >= (awsSet{Name: r.URL.Query().Get("name"), Type: r.URL.Query().Get("type")}).key() {
			s.Name = strings.ReplaceAll(s.Name, "*", `\052`)
			sets = append(sets, s)
		}
	}
	most, err := strconv.Atoi(r.URL.Query().Get("maxitems"))
	if err != nil || most > 300 {
		most = 300
	}
	return cloudAnswer{status: 200, body: xmlText(struct {
		XMLName     xml.Name `xml:"https://route53.amazonaws.com/doc/2013-04-01/ ListResourceRecordSetsResponse"`
		Sets        []awsSet `xml:"ResourceRecordSets>ResourceRecordSet"`
		IsTruncated bool
		MaxItems    int
	}{Sets: sets[:min(most, len(sets))], IsTruncated: len(sets) > most, MaxItems: most})}
}

// awsSets are the record sets of a zone, sorted.
func awsSets(z *cloudZone) []awsSet {
	var sets []awsSet
	for _, rec := range z.records {
		i := slices.IndexFunc(sets, func(s awsSet) bool { return s.Name == rec.name+"." && s.Type == rec.typ })
		if i < 0 {
			i = len(sets)
			sets = append(sets, awsSet{Name: rec.name + ".", Type: rec.typ, TTL: rec.ttl})
		}
		sets[i].Records = append(sets[i].Records, awsRecord{recode(rec.data, 10, `\%03o`)})
	}
	slices.SortFunc(sets, func(x, y awsSet) int { return cmp.Compare(x.key(), y.key()) })
	return sets
}

// recode writes the escapes \DDD of one base in another form.
func recode(data string, base int, form string) string {
	return regexp.MustCompile(`\\\d{3}`).ReplaceAllStringFunc(data, func(escape string) string {
		n, err := strconv.ParseUint(escape[1:], base, 8)
		if err != nil {
			return escape
		}
		return fmt.Sprintf(form, n)
	})
}

// awsChange does all that a batch says, or nothing.
func awsChange(c *Cloud, z *cloudZone, body []byte) cloudAnswer {
	var request struct {
		Changes []struct {
			Action string
			Set    awsSet `xml:"ResourceRecordSet"`
		} `xml:"ChangeBatch>Changes>Change"`
	}
	if err := xml.Unmarshal(body, &request); err != nil {
		return awsRefuse(400, "MalformedInput", "Unexpected end of input")
	}
	before := slices.Clone(z.records)
	for _, change := range request.Changes {
		if why := awsApply(c, z, change.Action, change.Set); why != "" {
			z.records = before
			c.publish(z)
			return cloudAnswer{status: 400, body: xmlText(struct {
				XMLName  xml.Name `xml:"https://route53.amazonaws.com/doc/2013-04-01/ InvalidChangeBatch"`
				Messages []string `xml:"Messages>Message"`
				Request  string   `xml:"RequestId"`
			}{Messages: []string{why}, Request: "b25f48e8"})}
		}
	}
	c.publish(z)
	return cloudAnswer{status: 200, body: xmlText(struct {
		XMLName   xml.Name `xml:"https://route53.amazonaws.com/doc/2013-04-01/ ChangeResourceRecordSetsResponse"`
		ID        string   `xml:"ChangeInfo>Id"`
		Status    string   `xml:"ChangeInfo>Status"`
		Submitted string   `xml:"ChangeInfo>SubmittedAt"`
	}{ID: "/change/C2682N5HXP0BZ4", Status: "PENDING", Submitted: "2026-11-21T12:00:00.000Z"})}
}

// awsApply makes one change of a batch, unpublished, and says why not.
func awsApply(c *Cloud, z *cloudZone, action string, set awsSet) string {
	name := strings.TrimSuffix(set.Name, ".")
	what := fmt.Sprintf("resource record set [name='%s', type='%s']", set.Name, set.Type)
	var there awsSet
	cname := false
	for _, s := range awsSets(z) {
		if s.Name == set.Name && s.Type == set.Type {
			there = s
		}
		cname = cname || s.Name == set.Name && s.Type == "CNAME"
	}
	switch {
	case action == "DELETE" && there.Name == "":
		return "[Tried to delete " + what + " but it was not found]"
	case action == "DELETE" && (there.TTL != set.TTL || !slices.Equal(there.values(), set.values())):
		return "[Tried to delete " + what + " but the values provided do not match the current values]"
	case action == "CREATE" && there.Name != "":
		return "[Tried to create " + what + " but it already exists]"
	case action == "CREATE" && cname:
		return "[RRSet of type TXT with DNS name " + set.Name + " is not permitted because a conflicting RRSet of type CNAME with the same DNS name already exists]"
	}
	z.records = slices.DeleteFunc(z.records, func(rec cloudRecord) bool { return rec.name == name && rec.typ == set.Type })
	if action == "DELETE" {
		return ""
	}
	for _, r := range set.Records {
		v := r.Value
		if set.Type == "TXT" && !strings.HasPrefix(v, `"`) {
			return "[Invalid Resource Record: 'FATAL problem: InvalidCharacterString (Value should be enclosed in quotation marks)']"
		}
		z.records = append(z.records, cloudRecord{id: c.newID(), name: name, typ: set.Type, data: recode(v, 8, `\%03d`), ttl: set.TTL})
	}
	return ""
}
