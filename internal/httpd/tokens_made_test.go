package httpd

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stspub/stspub/internal/store"
)

// TestTokensMadeWithTokens: what a stolen token began ends with it.
func TestTokensMadeWithTokens(t *testing.T) {
	t.Parallel()
	w := runAdmin(t, "127.0.0.1:0", false)
	w.tenant(t, "acme")
	ends := time.Now().Add(time.Hour).Truncate(time.Microsecond).UTC()
	text := w.token(t, "acme", store.RoleAdmin, func(k *store.Token) { k.Expires = ends })
	stolen := w.As(text, "")
	made, err := stolen.AddToken(t.Context(), NewToken{Role: store.RoleAdmin})
	if err != nil {
		t.Fatal(err)
	}
	id := strings.Split(text, "_")[1]
	if !made.Expires.Equal(ends) || made.Maker != id {
		t.Errorf("made is %+v, want the end %v and the maker %s", made, ends, id)
	}
	_, err = stolen.AddToken(t.Context(), NewToken{Role: store.RoleRead, Expires: ends.Add(time.Second)})
	if status(t, err) != http.StatusBadRequest || !strings.Contains(err.Error(), "when the token ends that makes it") {
		t.Errorf("a token that ends later: %v", err)
	}
	again, err := w.As(made.Token, "").AddToken(t.Context(), NewToken{Role: store.RoleRead, Expires: ends.Add(-time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	other := w.token(t, "acme", store.RoleAdmin, nil)
	if err := w.As(other, "").RevokeToken(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	for what, token := range map[string]string{"stolen": text, "made with it": made.Token, "made with that": again.Token} {
		if _, err := w.As(token, "").Tokens(t.Context()); status(t, err) != http.StatusUnauthorized || !strings.Contains(err.Error(), "was revoked at") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := w.As(other, "").Tokens(t.Context()); err != nil {
		t.Errorf("another: %v", err)
	}
	forever, err := w.As(other, "").AddToken(t.Context(), NewToken{Role: store.RoleRead})
	if err != nil || !forever.Expires.IsZero() {
		t.Errorf("made with one that never ends: %+v, %v", forever, err)
	}
}
