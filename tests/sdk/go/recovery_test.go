package drumline

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/centrifugal/centrifuge-go"
)

// cutAndPublish cuts the link, publishes {"n": first} to {"n": last} meanwhile, and mends the link.
func cutAndPublish(t *testing.T, c *client, l *link, channel string, first, last int) {
	t.Helper()
	l.cut()
	next(t, "the cut", c.connecting)
	for n := first; n <= last; n++ {
		publish(t, channel, n)
	}
	l.mend()
	next(t, "a new connection", c.connected)
}

// subscribedAgain waits for the subscription after a cut, and checks whether it recovered.
func (s *subscription) subscribedAgain(t *testing.T, recovered bool) centrifuge.SubscribedEvent {
	t.Helper()
	event := next(t, "subscribed again", s.subscribed)
	equal(t, "recovered", []bool{event.WasRecovering, event.Recovered}, []bool{true, recovered})
	return event
}

func TestPublicationsMissedDuringCutsAreRecoveredInOrderAndOnce(t *testing.T) {
	inBoth(t, func(t *testing.T, p protocol) {
		channel, l := unique("stream:cut"), newLink(t)
		c := p.connect(t, options{link: l})
		s := c.subscribe(t, channel, centrifuge.SubscriptionConfig{})
		for round := 0; round < 3; round++ {
			from := round * 50
			for n := from + 1; n <= from+10; n++ {
				publish(t, channel, n)
			}
			s.expect(t, from+1, from+10)
			cutAndPublish(t, c, l, channel, from+11, from+50)
			s.subscribedAgain(t, true)
			s.expect(t, from+11, from+50)
		}
		publish(t, channel, 151)
		s.expect(t, 151, 151)
		none(t, "a publication came twice", s.publications)
	})
}

func TestGapsOfMoreThanTheHistoryAreReported(t *testing.T) {
	inBoth(t, func(t *testing.T, p protocol) {
		channel, l := unique("small:cut"), newLink(t)
		c := p.connect(t, options{link: l})
		s := c.subscribe(t, channel, centrifuge.SubscriptionConfig{})
		cutAndPublish(t, c, l, channel, 1, 3)
		event := s.subscribedAgain(t, false)
		equal(t, "offset", event.StreamPosition.Offset, 3)
		publish(t, channel, 4)
		s.expect(t, 4, 4)
	})
}

func TestCacheRecoveryBringsTheLatestPublication(t *testing.T) {
	inBoth(t, func(t *testing.T, p protocol) {
		channel, l := unique("cache:cut"), newLink(t)
		c := p.connect(t, options{link: l})
		s := c.subscribe(t, channel, centrifuge.SubscriptionConfig{})
		cutAndPublish(t, c, l, channel, 1, 5)
		event := next(t, "subscribed again", s.subscribed)
		equal(t, "recovered", event.Recovered, true)
		s.expect(t, 5, 5)
		publish(t, channel, 6)
		s.expect(t, 6, 6)
	})
}

func TestServerSideSubscriptionsRecoverOverACut(t *testing.T) {
	inBoth(t, func(t *testing.T, p protocol) {
		channel, l := unique("stream:served"), newLink(t)
		c := p.connect(t, options{link: l, claims: object{"channels": []string{channel}}})
		equal(t, "channel", next(t, "subscribed", c.subscribed).Channel, channel)
		publish(t, channel, 1)
		equal(t, "live", string(next(t, "publication", c.publications).Data), `{"n":1}`)
		cutAndPublish(t, c, l, channel, 2, 21)
		event := next(t, "subscribed again", c.subscribed)
		equal(t, "recovered", []bool{event.WasRecovering, event.Recovered}, []bool{true, true})
		for n := 2; n <= 21; n++ {
			got := next(t, "missed publication", c.publications)
			equal(t, "data", string(got.Data), fmt.Sprintf(`{"n":%d}`, n))
		}
		publish(t, channel, 22)
		equal(t, "live", string(next(t, "publication", c.publications).Data), `{"n":22}`)
	})
}

// document is a large object that differs little from its predecessor.
func document(n int) object {
	return object{"n": n, "text": strings.Repeat("one text in all of them, ", 80)}
}

func (s *subscription) expectDocument(t *testing.T, n int) {
	t.Helper()
	got := next(t, fmt.Sprintf("document %d", n), s.publications)
	want, err := json.Marshal(document(n))
	ok(t, err)
	if !bytes.Equal(got.Data, want) {
		t.Fatalf("document %d: %s", n, got.Data)
	}
}

func TestDeltasCarryDocumentsInFewBytes(t *testing.T) {
	inBoth(t, func(t *testing.T, p protocol) {
		channel, l, plainLink := unique("doc:d"), newLink(t), newLink(t)
		c := p.connect(t, options{link: l})
		plain := p.connect(t, options{link: plainLink})
		s := c.subscribe(t, channel, centrifuge.SubscriptionConfig{Delta: centrifuge.DeltaTypeFossil})
		whole := plain.subscribe(t, channel, centrifuge.SubscriptionConfig{})
		var late *subscription
		for n := 1; n <= 100; n++ {
			api(t, "publish", object{"channel": channel, "data": document(n)})
			s.expectDocument(t, n)
			whole.expectDocument(t, n)
			if late != nil {
				late.expectDocument(t, n)
			}
			if n == 50 {
				late = p.connect(t, options{}).subscribe(
					t, channel, centrifuge.SubscriptionConfig{Delta: centrifuge.DeltaTypeFossil})
			}
		}
		deltas, wholes := l.fromNode.Load(), plainLink.fromNode.Load()
		if deltas*5 > wholes {
			t.Fatalf("deltas took %d bytes, whole documents %d", deltas, wholes)
		}
		l.cut()
		next(t, "the cut", c.connecting)
		for n := 101; n <= 110; n++ {
			api(t, "publish", object{"channel": channel, "data": document(n)})
		}
		l.mend()
		equal(t, "recovered", next(t, "subscribed again", s.subscribed).Recovered, true)
		for n := 101; n <= 110; n++ {
			s.expectDocument(t, n)
		}
		api(t, "publish", object{"channel": channel, "data": document(111)})
		s.expectDocument(t, 111)
	})
}

// counted returns a GetState that counts its calls, and fails the first failures of them.
func counted(calls *atomic.Int64, failures int64, position func() centrifuge.StreamPosition) func(
	centrifuge.SubscriptionGetStateEvent) (centrifuge.StreamPosition, error) {
	return func(centrifuge.SubscriptionGetStateEvent) (centrifuge.StreamPosition, error) {
		if calls.Add(1) <= failures {
			return centrifuge.StreamPosition{}, errors.New("the state cannot be read")
		}
		return position(), nil
	}
}

func fromZero() centrifuge.StreamPosition { return centrifuge.StreamPosition{} }

func TestGetStateIsAskedAtTheFirstSubscribeAndNotAfterARecovery(t *testing.T) {
	inBoth(t, func(t *testing.T, p protocol) {
		channel, l := unique("stream:state"), newLink(t)
		for n := 1; n <= 3; n++ {
			publish(t, channel, n)
		}
		var calls atomic.Int64
		c := p.connect(t, options{link: l})
		s := c.subscribe(t, channel, centrifuge.SubscriptionConfig{GetState: counted(&calls, 1, fromZero)})
		next(t, "the error of the first call", s.errors)
		s.expect(t, 1, 3)
		cutAndPublish(t, c, l, channel, 4, 6)
		equal(t, "recovered", next(t, "subscribed again", s.subscribed).Recovered, true)
		s.expect(t, 4, 6)
		equal(t, "calls", calls.Load(), 2)
	})
}

func TestGetStateIsAskedAgainForAPositionThatCannotBeRecovered(t *testing.T) {
	inBoth(t, func(t *testing.T, p protocol) {
		channel, l := unique("small:state"), newLink(t)
		var calls atomic.Int64
		c := p.connect(t, options{link: l})
		top := func() centrifuge.StreamPosition {
			position := api(t, "history", object{"channel": channel})
			return centrifuge.StreamPosition{
				Offset: uint64(position["offset"].(float64)), Epoch: position["epoch"].(string),
			}
		}
		s := c.subscribe(t, channel, centrifuge.SubscriptionConfig{GetState: counted(&calls, 0, top)})
		cutAndPublish(t, c, l, channel, 1, 5)
		event := next(t, "subscribed again", s.subscribed)
		equal(t, "recovered", event.Recovered, true)
		equal(t, "calls", calls.Load(), 2)
		publish(t, channel, 6)
		s.expect(t, 6, 6)
		none(t, "an error", s.unsubscribed)
	})
}

func TestHistoryHasLimitSinceAndReverse(t *testing.T) {
	inBoth(t, func(t *testing.T, p protocol) {
		channel := unique("stream:history")
		s := p.connect(t, options{}).subscribe(t, channel, centrifuge.SubscriptionConfig{})
		for n := 1; n <= 10; n++ {
			publish(t, channel, n)
		}
		position, err := s.History(soon(t))
		ok(t, err)
		equal(t, "position", []any{position.Offset, len(position.Publications)}, []any{10, 0})
		check := func(what string, want []uint64, given ...centrifuge.HistoryOption) {
			t.Helper()
			result, err := s.History(soon(t), given...)
			ok(t, err)
			offsets := []uint64{}
			for _, one := range result.Publications {
				offsets = append(offsets, one.Offset)
			}
			equal(t, what, offsets, want)
		}
		since := &centrifuge.StreamPosition{Offset: 3, Epoch: position.Epoch}
		limit := centrifuge.WithHistoryLimit
		check("limit", []uint64{1, 2}, limit(2))
		check("since", []uint64{4, 5}, limit(2), centrifuge.WithHistorySince(since))
		check("reverse", []uint64{10, 9, 8}, limit(3), centrifuge.WithHistoryReverse(true))
		check("reverse since", []uint64{2, 1}, limit(-1), centrifuge.WithHistorySince(since),
			centrifuge.WithHistoryReverse(true))
		check("all", []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, limit(-1))
	})
}
