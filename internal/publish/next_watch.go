package publish

import (
	"fmt"
	"strings"

	"github.com/stspub/stspub/internal/policygen"
)

// covered compares the domain's MX with the policy that is served. In a roll-out the checks of the promotion do that.
func (p *pass) covered() *Decision {
	served, err := policygen.ParsePolicy([]byte(p.s.Served))
	testing := served.Mode == policygen.Testing && (p.w.Rollout == 0 || p.s.Pinned)
	if err != nil || served.Mode != policygen.Enforce && !testing {
		return nil
	}
	if p.o.MX == nil {
		d := look(LookMX)
		return &d
	}
	if len(p.o.MX.Uncovered) == 0 {
		return nil
	}
	mx := strings.Join(p.o.MX.Uncovered, ", ")
	if testing {
		p.notice("mx-uncovered-testing", fmt.Sprintf("senders would refuse the MX %s of %s if the policy were enforced: it does not "+
			"cover it; add it to the MX set or remove it from DNS", mx, p.w.Name))
	} else {
		p.find("mx-uncovered", fmt.Sprintf("senders refuse the MX %s of %s: the policy does not cover it; "+
			"add it to the MX set or remove it from DNS", mx, p.w.Name))
	}
	return nil
}
