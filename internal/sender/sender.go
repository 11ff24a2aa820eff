// Package sender sees a domain as a sending MTA does: its _mta-sts record, its policy, its MX, their certificates.
//
// A sender that honours MTA-STS (RFC 8461) takes these steps before it delivers to a domain:
//
//  1. It asks for the TXT record _mta-sts.<domain>, following CNAMEs. Unless exactly one record begins with "v=STSv1;",
//     the domain has no policy. The record's id says whether the policy in the sender's cache is still the current one.
//  2. It fetches https://mta-sts.<domain>/.well-known/mta-sts.txt: status 200, a certificate that is valid for the
//     policy host, no redirects. A sender with nothing cached delivers without a policy when that fails; a sender with a
//     cached policy goes on with it until its max_age is over.
//  3. It delivers only to MX hosts that the policy lists, and only if each answers STARTTLS with a valid certificate for
//     its name; in mode testing it delivers all the same and reports.
//
// [Resolver] asks DNS, for this package and for everything else in stspub. [Client.FetchPolicy] and [Client.ProbeMX]
// are steps 2 and 3 alone; [Client.Check] takes all steps and says what each kind of sender will make of the domain.
//
// The package changes nothing anywhere, and holds no state between calls.
package sender
