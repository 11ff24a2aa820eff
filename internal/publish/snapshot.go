package publish

// Page is a policy as it goes out, prepared when it changed. Domains with the same text share one Page.
type Page struct {
	Text   string
	Length string // of Text, for the Content-Length header
}
