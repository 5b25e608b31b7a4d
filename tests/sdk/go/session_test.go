package drumline

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/centrifugal/centrifuge-go"
)

func TestConnectionTokensAreRefreshedBeforeTheyExpire(t *testing.T) {
	inBoth(t, func(t *testing.T, p protocol) {
		user := unique("refreshed")
		var calls atomic.Int64
		asked := make(chan int64, 100)
		c := p.connect(t, options{getToken: func() (string, error) {
			asked <- calls.Add(1)
			return token(object{"sub": user, "exp": inSeconds(2)}), nil
		}})
		s := c.subscribe(t, unique("stream:refresh"), centrifuge.SubscriptionConfig{})
		for nth := 1; nth <= 4; nth++ {
			equal(t, "call", next(t, "a question for a token", asked), nth)
		}
		publish(t, s.Channel, 1)
		s.expect(t, 1, 1)
		none(t, "the connection broke", c.connecting)
		none(t, "an error", c.errors)
	})
}

func TestAnExpiredTokenMakesTheClientAskForAnother(t *testing.T) {
	inBoth(t, func(t *testing.T, p protocol) {
		c := p.client(t, options{
			token:    token(object{"sub": "late", "exp": inSeconds(-10)}),
			getToken: func() (string, error) { return token(object{"sub": "late"}), nil },
		})
		ok(t, c.Connect())
		failed := next(t, "the error", c.errors)
		equal(t, "error", failed, "connect error: 109: token expired")
		next(t, "connected with another token", c.connected)
	})
}

func TestAClientThatRefreshesNoTokenIsClosed(t *testing.T) {
	inBoth(t, func(t *testing.T, p protocol) {
		var calls atomic.Int64
		c := p.connect(t, options{getToken: func() (string, error) {
			if calls.Add(1) > 1 {
				return "", centrifuge.ErrUnauthorized
			}
			return token(object{"sub": "withdrawn", "exp": inSeconds(2)}), nil
		}})
		equal(t, "code", next(t, "the end", c.disconnected).Code, 1)
	})
}

func TestInvalidTokensEndTheConnectionForGood(t *testing.T) {
	inBoth(t, func(t *testing.T, p protocol) {
		c := p.client(t, options{token: token(object{"sub": "x"}) + "x"})
		ok(t, c.Connect())
		event := next(t, "the end", c.disconnected)
		equal(t, "end", event, centrifuge.DisconnectedEvent{Code: 3500, Reason: "invalid token"})
	})
}

func TestSubscriptionTokensAreRefreshedBeforeTheyExpire(t *testing.T) {
	inBoth(t, func(t *testing.T, p protocol) {
		channel := unique("closed:refresh")
		c := p.connect(t, options{})
		var calls atomic.Int64
		asked := make(chan int64, 100)
		s := c.subscribe(t, channel, centrifuge.SubscriptionConfig{
			GetToken: func(event centrifuge.SubscriptionTokenEvent) (string, error) {
				asked <- calls.Add(1)
				return token(object{"sub": c.user, "channel": event.Channel, "exp": inSeconds(2)}), nil
			},
		})
		for nth := 1; nth <= 4; nth++ {
			equal(t, "call", next(t, "a question for a token", asked), nth)
		}
		publish(t, channel, 1)
		s.expect(t, 1, 1)
		none(t, "the subscription ended", s.unsubscribed)
		none(t, "an error", s.errors)
	})
}

func TestASubscriptionTokenForAnotherChannelEndsTheConnection(t *testing.T) {
	inBoth(t, func(t *testing.T, p protocol) {
		c := p.connect(t, options{})
		s := c.subscription(t, unique("closed:mine"), centrifuge.SubscriptionConfig{
			Token: token(object{"sub": c.user, "channel": "closed:other"}),
		})
		ok(t, s.Subscribe())
		equal(t, "code", next(t, "the end", c.disconnected).Code, 3500)
	})
}

func TestTagsFiltersSelectPublications(t *testing.T) {
	inBoth(t, func(t *testing.T, p protocol) {
		channel := unique("tagged:f")
		c := p.connect(t, options{})
		s := c.subscribe(t, channel, centrifuge.SubscriptionConfig{
			TagsFilter: centrifuge.FilterAnd(
				centrifuge.FilterIn("kind", "a", "b"),
				centrifuge.FilterOr(centrifuge.FilterGt("size", "10"), centrifuge.FilterExists("all")),
				centrifuge.FilterNot(centrifuge.FilterStartsWith("name", "no"))),
		})
		publications := []struct {
			tags    map[string]string
			matches bool
		}{
			{map[string]string{"kind": "a", "size": "11"}, true},
			{map[string]string{"kind": "a", "size": "9"}, false},
			{map[string]string{"kind": "b", "all": ""}, true},
			{map[string]string{"kind": "c", "all": ""}, false},
			{map[string]string{"kind": "a", "all": "", "name": "none"}, false},
			{map[string]string{"kind": "a", "all": "", "name": "one"}, true},
		}
		for n, one := range publications {
			api(t, "publish", object{"channel": channel, "data": object{"n": n}, "tags": one.tags})
		}
		for n, one := range publications {
			if one.matches {
				s.expect(t, n, n)
			}
		}
		ok(t, s.Unsubscribe())
		next(t, "unsubscribed", s.unsubscribed)
		ok(t, s.SetTagsFilter(centrifuge.FilterEq("kind", "z")))
		ok(t, s.Subscribe())
		next(t, "subscribed with another filter", s.subscribed)
		api(t, "publish", object{"channel": channel, "data": object{"n": 7}, "tags": object{"kind": "a"}})
		api(t, "publish", object{"channel": channel, "data": object{"n": 8}, "tags": object{"kind": "z"}})
		s.expect(t, 8, 8)
	})
}

func TestFiltersNeedTheOptionOfTheNamespace(t *testing.T) {
	inBoth(t, func(t *testing.T, p protocol) {
		s := p.connect(t, options{}).subscription(t, unique("stream:f"), centrifuge.SubscriptionConfig{
			TagsFilter: centrifuge.FilterEq("a", "b"),
		})
		ok(t, s.Subscribe())
		equal(t, "code", next(t, "refusal", s.unsubscribed).Code, 107)
	})
}

func TestPresenceAndJoinsNameTheMembers(t *testing.T) {
	inBoth(t, func(t *testing.T, p protocol) {
		channel := unique("room:p")
		one := p.connect(t, options{claims: object{"info": object{"name": "one"}}})
		first := one.subscribe(t, channel, centrifuge.SubscriptionConfig{JoinLeave: true})
		equal(t, "join", next(t, "own join", first.joins).User, one.user)
		two := p.connect(t, options{claims: object{"info": object{"name": "two"}}})
		two.subscribe(t, channel, centrifuge.SubscriptionConfig{})
		join := next(t, "join", first.joins)
		equal(t, "join", []any{join.User, string(join.ConnInfo)}, []any{two.user, `{"name":"two"}`})
		presence, err := first.Presence(soon(t))
		ok(t, err)
		names := map[string]string{}
		for id, member := range presence.Clients {
			equal(t, "id", member.Client, id)
			names[member.User] = string(member.ConnInfo)
		}
		equal(t, "presence", names,
			map[string]string{one.user: `{"name":"one"}`, two.user: `{"name":"two"}`})
		stats, err := first.PresenceStats(soon(t))
		ok(t, err)
		equal(t, "stats", stats.PresenceStats, centrifuge.PresenceStats{NumClients: 2, NumUsers: 2})
		two.Close()
		equal(t, "leave", next(t, "leave", first.leaves).User, two.user)
		stats, err = first.PresenceStats(soon(t))
		ok(t, err)
		equal(t, "stats", stats.PresenceStats, centrifuge.PresenceStats{NumClients: 1, NumUsers: 1})
	})
}

// disconnected connects a client, which the API ends with a code.
func (p protocol) disconnected(t *testing.T, code uint32) *client {
	t.Helper()
	c := p.connect(t, options{})
	disconnect := object{"code": code, "reason": "for a test"}
	api(t, "disconnect", object{"user": c.user, "disconnect": disconnect})
	return c
}

func TestDisconnectCodesDecideWhetherTheClientReturns(t *testing.T) {
	inBoth(t, func(t *testing.T, p protocol) {
		for _, code := range []uint32{3010, 3011, 4000, 4499} {
			c := p.disconnected(t, code)
			event := next(t, fmt.Sprintf("end with %d", code), c.connecting)
			equal(t, "end", event, centrifuge.ConnectingEvent{Code: code, Reason: "for a test"})
			next(t, fmt.Sprintf("return after %d", code), c.connected)
		}
		for _, code := range []uint32{3500, 3503, 4500, 4999} {
			c := p.disconnected(t, code)
			event := next(t, fmt.Sprintf("end with %d", code), c.disconnected)
			equal(t, "end", event, centrifuge.DisconnectedEvent{Code: code, Reason: "for a test"})
		}
		c := p.connect(t, options{})
		api(t, "disconnect", object{"user": c.user})
		event := next(t, "end without a code", c.disconnected)
		equal(t, "end", event, centrifuge.DisconnectedEvent{Code: 3503, Reason: "force disconnect"})
	})
}

func TestMessagesToTheServerAreRefused(t *testing.T) {
	inBoth(t, func(t *testing.T, p protocol) {
		c := p.connect(t, options{})
		ok(t, c.Send(soon(t), []byte(`{}`)))
		equal(t, "code", next(t, "the end", c.disconnected).Code, 3508)
	})
}

func TestTheApiSubscribesAndUnsubscribes(t *testing.T) {
	inBoth(t, func(t *testing.T, p protocol) {
		channel := unique("stream:api")
		c := p.connect(t, options{})
		api(t, "subscribe", object{"user": c.user, "channel": channel, "data": object{"hello": 1}})
		event := next(t, "subscribed", c.subscribed)
		equal(t, "event", []any{event.Channel, event.Recoverable, string(event.Data)},
			[]any{channel, true, `{"hello":1}`})
		publish(t, channel, 1)
		equal(t, "data", string(next(t, "publication", c.publications).Data), `{"n":1}`)
		api(t, "unsubscribe", object{"user": c.user, "channel": channel})
		equal(t, "channel", next(t, "unsubscribed", c.unsubscribed).Channel, channel)

		own := c.subscribe(t, unique("stream:own"), centrifuge.SubscriptionConfig{})
		api(t, "unsubscribe", object{"user": c.user, "channel": own.Channel})
		equal(t, "code", next(t, "unsubscribed", own.unsubscribed).Code, 2000)
	})
}
