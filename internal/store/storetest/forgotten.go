package storetest

import "github.com/stspub/stspub/internal/store"

// webhookForgotten forgets events before webhooks take them.
func webhookForgotten(e *env) {
	e.tenant("acme")
	e.tenant("other")
	for _, of := range []struct{ tenant, name string }{
		{"acme", "reached"}, {"acme", "late"}, {"acme", "held"}, {"", "service"}, {"other", "apart"},
	} {
		e.webhook(of.tenant, of.name)
	}
	picky := store.Webhook{Tenant: "acme", Name: "picky", Kinds: []string{"k"}, URL: "https://hooks.example/", Secret: []byte{1}, Created: at(0)}
	e.must(e.AddWebhook(e.ctx(), picky, at(0)))
	happens := func(tenant, kind, name string) int64 {
		e.Helper()
		e.must(e.AppendEvents(e.ctx(), []store.Event{{At: at(1), Tenant: tenant, Kind: kind, Name: name, Text: "it happened"}}))
		last, err := e.LastChange(e.ctx())
		e.must(err)
		return last
	}
	first := happens("acme", store.KindDomainStep, "a.example")
	happens("acme", store.KindDomainStep, "b.example")
	third := happens("acme", store.KindDomainStep, "a.example")
	happens("acme", "k", "a.example")
	happens("acme", "never sent", "a.example")
	last := happens("other", "k", "c.example")
	claimed := e.claimWebhooks(9)
	save := func(w store.Webhook, d store.Delivery) {
		e.Helper()
		d.Lost = 7
		w.Delivery = d
		e.must(e.SaveWebhook(e.ctx(), w, lease))
	}
	save(claimed["acme/reached"], store.Delivery{Reached: last})
	save(claimed["acme/late"], store.Delivery{Reached: first})
	// That of b.example and the first of a.example are delivered.
	save(claimed["acme/held"], store.Delivery{Reached: third, Held: []store.HeldEvent{{Tenant: "acme", Name: "a.example", Seq: first + 1, Due: at(9)}}})
	total := make(map[string]int)
	pruned := 0
	for range 2 {
		n, lost, err := e.PruneEvents(e.ctx(), at(2), 100, []string{store.KindDomainStep})
		e.must(err)
		pruned += n
		for _, l := range lost {
			total[l.Tenant+"/"+l.Name] += l.Events
		}
	}
	want := map[string]int{"acme/late": 2, "acme/held": 1, "acme/picky": 1, "/service": 3}
	e.equal("lost", total, want)
	if pruned < 6 {
		e.Errorf("%d events were forgotten, want six and what was before", pruned)
	}
	// Who delivers and saves what it knew before takes nothing back.
	save(claimed["acme/late"], store.Delivery{Reached: last})
	e.reopen()
	for _, of := range []struct{ tenant, name string }{
		{"acme", "reached"}, {"acme", "late"}, {"acme", "held"}, {"acme", "picky"}, {"", "service"}, {"other", "apart"},
	} {
		w := e.readWebhook(of.tenant, of.name)
		e.equal("forgotten of "+of.name, int(w.Forgotten), want[of.tenant+"/"+of.name])
		if of.tenant == "acme" && of.name != "picky" {
			e.equal("given up of "+of.name, int(w.Delivery.Lost), 7)
		}
	}
}
