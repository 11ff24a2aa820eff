package dnsupdate

import (
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	r53 "github.com/aws/aws-sdk-go-v2/service/route53"
	"github.com/aws/aws-sdk-go-v2/service/route53/types"
	"golang.org/x/time/rate"

	"github.com/stspub/stspub/internal/config"
)

const (
	route53URL = "https://route53.amazonaws.com"
	// 5 requests a second are allowed to all users of an AWS account together.
	route53Rate, route53Burst = 3, 2
	route53Penalty            = 2 * time.Second
)

// route53 writes through AWS's own SDK. A batch of changes is made as a whole or not at all, and a deletion has to say
// exactly what is there; so "delete this set, create that one" is a compare-and-swap. libdns/route53 has UPSERT only.
type route53 struct {
	api    *api
	client *r53.Client
	zones  cache[string] // ids by name
}

func newRoute53(a config.Account, g *guard, rt http.RoundTripper) (*cloud, error) {
	g.limit = rate.NewLimiter(route53Rate, route53Burst)
	g.perChange = 2 // a look, the batch
	if a.KeyID == "" || a.Secret == "" {
		return nil, errors.New("no access key: set access_key_id, and secret_access_key_file or secret_access_key_env")
	}
	api, err := newAPI(a, g, rt, route53URL)
	if err != nil {
		return nil, err
	}
	api.judge, api.penalty = judgeRoute53, route53Penalty
	r := &route53{api: api}
	// Nothing is taken from the environment or from files of AWS.
	r.client = r53.New(r53.Options{
		BaseEndpoint: aws.String(api.base.String()),
		Region:       "us-east-1",
		HTTPClient:   r,
		Retryer:      aws.NopRetryer{}, // the caller's part
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: a.KeyID, SecretAccessKey: string(a.Secret)}, nil
		}),
	})
	return &cloud{api: r, swaps: true}, nil
}

// Do implements the SDK's HTTPClient. Its errors come back through the SDK as they are.
func (a *route53) Do(req *http.Request) (*http.Response, error) {
	body, err := a.api.send(req, req.Method != http.MethodGet)
	if err != nil {
		return nil, err
	}
	return response(body), nil
}

// judgeRoute53 goes by the code, as most refusals are HTTP 400. Some errors are their own root element.
func judgeRoute53(status int, body []byte) (Kind, string) {
	var answer struct {
		XMLName  xml.Name
		Error    awsError `xml:"Error"`
		Messages []string `xml:"Messages>Message"`
	}
	malformed := xml.Unmarshal(body, &answer) // gateways answer in HTML
	kind := kindOfStatus(status)
	switch {
	case kind == "" && malformed == nil && strings.HasSuffix(answer.XMLName.Local, "Response"):
		return "", ""
	case kind == "" || malformed != nil || strings.EqualFold(answer.XMLName.Local, "html"):
		return cmp.Or(kind, KindUnavailable), ""
	}
	if answer.Error.Code == "" {
		answer.Error = awsError{Code: answer.XMLName.Local, Message: strings.Join(answer.Messages, " ")}
	}
	switch answer.Error.Code {
	case "Throttling", "ThrottlingException", "PriorRequestNotComplete":
		kind = KindRateLimited
	case "NoSuchHostedZone":
		kind = KindNoZone
	case "InvalidChangeBatch":
		kind = KindConflict
	case "LimitsExceeded":
		kind = KindQuota
	}
	return kind, worded(answer.Error.Message) + " (" + answer.Error.Code + ")"
}

type awsError struct {
	Code    string `xml:"Code"`
	Message string `xml:"Message"`
}

func (a *route53) look(ctx context.Context, c Change) ([]txtRecord, error) {
	_, known := a.zones.get(c.Zone)
	found, err := a.list(ctx, c)
	if f, ok := errors.AsType[*fault](err); known && ok && f.kind == KindNoZone {
		a.zones.forget(c.Zone) // one that was deleted and made again has another id
		return a.list(ctx, c)
	}
	return found, err
}

func (a *route53) zoneID(ctx context.Context, name string) (string, error) {
	if id, known := a.zones.get(name); known {
		return id, nil
	}
	// They come sorted, from this name on.
	answer, err := a.client.ListHostedZonesByName(ctx, &r53.ListHostedZonesByNameInput{DNSName: aws.String(name + ".")})
	if err != nil {
		return "", sdkFault(err)
	}
	var ids []string
	for _, z := range answer.HostedZones {
		if unfqdn(aws.ToString(z.Name)) == name && (z.Config == nil || !z.Config.PrivateZone) {
			ids = append(ids, aws.ToString(z.Id))
		}
	}
	if len(ids) != 1 {
		return "", faultf(KindNoZone, "the access key sees %d public hosted zones of this name", len(ids))
	}
	a.zones.put(name, ids[0])
	return ids[0], nil
}

// list reads the record sets from the name on; at one name there are far fewer types than on a page.
func (a *route53) list(ctx context.Context, c Change) ([]txtRecord, error) {
	id, err := a.zoneID(ctx, c.Zone)
	if err != nil {
		return nil, err
	}
	answer, err := a.client.ListResourceRecordSets(ctx, &r53.ListResourceRecordSetsInput{
		HostedZoneId: aws.String(id), StartRecordName: aws.String(c.Name + "."), MaxItems: aws.Int32(100),
	})
	if err != nil {
		return nil, sdkFault(err)
	}
	var found []txtRecord
	for _, set := range answer.ResourceRecordSets {
		switch {
		case unfqdn(octal(aws.ToString(set.Name))) != c.Name:
		case set.Type == types.RRTypeCname:
			return nil, faultf(KindCNAME, "the name is a CNAME%s", target(set))
		case set.Type == types.RRTypeTxt && set.SetIdentifier != nil:
			return nil, faultf(KindRefused, "the TXT records at the name have a routing policy; replace them by simple ones")
		case set.Type == types.RRTypeTxt:
			for _, r := range set.ResourceRecords {
				data := aws.ToString(r.Value)
				found = append(found, txtRecord{data: data, text: octalText(data), ttl: int(aws.ToInt64(set.TTL))})
			}
		}
	}
	return found, nil
}

func target(set types.ResourceRecordSet) string {
	if len(set.ResourceRecords) == 0 {
		return "" // an alias
	}
	return fmt.Sprintf(" to %q", unfqdn(aws.ToString(set.ResourceRecords[0].Value)))
}

func (a *route53) write(ctx context.Context, c Change, found []txtRecord, p plan) error {
	id, err := a.zoneID(ctx, c.Zone)
	if err != nil {
		return err
	}
	var changes []types.Change
	if old, ttl := (plan{}).whole(c, found, ""); len(old) > 0 {
		changes = append(changes, recordSet(types.ChangeActionDelete, c.Name, old, ttl))
	}
	if data, ttl := p.whole(c, found, `"`+c.Add+`"`); len(data) > 0 {
		changes = append(changes, recordSet(types.ChangeActionCreate, c.Name, data, ttl))
	}
	_, err = a.client.ChangeResourceRecordSets(ctx, &r53.ChangeResourceRecordSetsInput{
		HostedZoneId: aws.String(id), ChangeBatch: &types.ChangeBatch{Changes: changes},
	})
	err = sdkFault(err)
	if f, ok := errors.AsType[*fault](err); ok && f.kind == KindConflict {
		return fmt.Errorf("%w: %w", errSwapped, f.err)
	}
	return err
}

func recordSet(action types.ChangeAction, name string, data []string, ttl int) types.Change {
	set := &types.ResourceRecordSet{Name: aws.String(name + "."), Type: types.RRTypeTxt, TTL: aws.Int64(int64(ttl))}
	for _, d := range data {
		set.ResourceRecords = append(set.ResourceRecords, types.ResourceRecord{Value: aws.String(d)})
	}
	return types.Change{Action: action, ResourceRecordSet: set}
}

// sdkFault takes the SDK's words off a fault; what is none is an answer that the SDK did not understand.
func sdkFault(err error) error {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*fault](err); ok {
		return f
	}
	return malformed(err)
}

// octal takes the escapes \ooo out of a name.
func octal(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if code, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(code))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// octalText reads TXT data that has octal escapes where a zone file has decimal ones.
func octalText(data string) string {
	var b strings.Builder
	for i := 0; i < len(data); i++ {
		if data[i] == '\\' && i+3 < len(data) {
			if code, err := strconv.ParseUint(data[i+1:i+4], 8, 8); err == nil {
				fmt.Fprintf(&b, `\%03d`, code)
				i += 3
				continue
			}
		}
		if data[i] == '\\' && i+1 < len(data) {
			b.WriteByte(data[i])
			i++
		}
		b.WriteByte(data[i])
	}
	return textOf(b.String())
}
