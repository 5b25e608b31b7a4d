package drumline

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
)

// protocol is one encoding of the client protocol.
type protocol struct {
	name  string
	isNew func(string, centrifuge.Config) *centrifuge.Client
}

var protocols = []protocol{
	{"json", centrifuge.NewJsonClient},
	{"protobuf", centrifuge.NewProtobufClient},
}

var names atomic.Int64

// unique returns a name that no other test uses.
func unique(prefix string) string { return fmt.Sprintf("%s%d", prefix, names.Add(1)) }

// inBoth runs a check in both encodings, beside the other tests.
func inBoth(t *testing.T, check func(*testing.T, protocol)) {
	t.Parallel()
	for _, encoding := range protocols {
		t.Run(encoding.name, func(t *testing.T) {
			t.Parallel()
			check(t, encoding)
		})
	}
}

// client is a client of the SDK with the events that it reported.
type client struct {
	*centrifuge.Client
	user         string
	connected    chan centrifuge.ConnectedEvent
	connecting   chan centrifuge.ConnectingEvent
	disconnected chan centrifuge.DisconnectedEvent
	errors       chan error
	subscribed   chan centrifuge.ServerSubscribedEvent
	unsubscribed chan centrifuge.ServerUnsubscribedEvent
	publications chan centrifuge.ServerPublicationEvent
}

// options are what a test may change in a client.
type options struct {
	claims    object
	link      *link
	getToken  func() (string, error)
	token     string
	compress  bool
	pingDelay time.Duration
}

func (p protocol) client(t *testing.T, given options) *client {
	port := node.port
	if given.link != nil {
		port = given.link.port()
	}
	user := unique("user")
	claims := object{"sub": user}
	for key, value := range given.claims {
		claims[key] = value
	}
	first := given.token
	if first == "" && given.getToken == nil {
		first = token(claims)
	}
	config := centrifuge.Config{
		Token:              first,
		MinReconnectDelay:  20 * time.Millisecond,
		MaxReconnectDelay:  100 * time.Millisecond,
		HandshakeTimeout:   patience,
		ReadTimeout:        patience,
		WriteTimeout:       patience,
		EnableCompression:  given.compress,
		MaxServerPingDelay: given.pingDelay,
	}
	if given.getToken != nil {
		config.GetToken = func(centrifuge.ConnectionTokenEvent) (string, error) {
			return given.getToken()
		}
	}
	address := fmt.Sprintf("ws://127.0.0.1:%d/connection/websocket", port)
	c := &client{
		Client:       p.isNew(address, config),
		user:         user,
		connected:    make(chan centrifuge.ConnectedEvent, 100),
		connecting:   make(chan centrifuge.ConnectingEvent, 100),
		disconnected: make(chan centrifuge.DisconnectedEvent, 100),
		errors:       make(chan error, 1000),
		subscribed:   make(chan centrifuge.ServerSubscribedEvent, 100),
		unsubscribed: make(chan centrifuge.ServerUnsubscribedEvent, 100),
		publications: make(chan centrifuge.ServerPublicationEvent, 1000),
	}
	c.listen()
	t.Cleanup(c.Close)
	return c
}

func (c *client) listen() {
	c.OnConnected(func(e centrifuge.ConnectedEvent) { c.connected <- e })
	c.OnConnecting(func(e centrifuge.ConnectingEvent) { c.connecting <- e })
	c.OnDisconnected(func(e centrifuge.DisconnectedEvent) { c.disconnected <- e })
	c.OnError(func(e centrifuge.ErrorEvent) {
		select {
		case c.errors <- e.Error:
		default: // attempts while the link is cut
		}
	})
	c.OnSubscribed(func(e centrifuge.ServerSubscribedEvent) { c.subscribed <- e })
	c.OnUnsubscribed(func(e centrifuge.ServerUnsubscribedEvent) { c.unsubscribed <- e })
	c.OnPublication(func(e centrifuge.ServerPublicationEvent) { c.publications <- e })
}

// connect returns a connected client.
func (p protocol) connect(t *testing.T, given options) *client {
	t.Helper()
	c := p.client(t, given)
	ok(t, c.Connect())
	next(t, "connected", c.connected)
	next(t, "the first attempt", c.connecting)
	return c
}

// subscription is a subscription of the SDK with the events that it reported.
type subscription struct {
	*centrifuge.Subscription
	subscribing  chan centrifuge.SubscribingEvent
	subscribed   chan centrifuge.SubscribedEvent
	unsubscribed chan centrifuge.UnsubscribedEvent
	publications chan centrifuge.PublicationEvent
	joins        chan centrifuge.JoinEvent
	leaves       chan centrifuge.LeaveEvent
	errors       chan error
}

func (c *client) subscription(t *testing.T, channel string, config centrifuge.SubscriptionConfig) *subscription {
	t.Helper()
	config.MinResubscribeDelay = 20 * time.Millisecond
	config.MaxResubscribeDelay = 100 * time.Millisecond
	made, err := c.NewSubscription(channel, config)
	ok(t, err)
	s := &subscription{
		Subscription: made,
		subscribing:  make(chan centrifuge.SubscribingEvent, 100),
		subscribed:   make(chan centrifuge.SubscribedEvent, 100),
		unsubscribed: make(chan centrifuge.UnsubscribedEvent, 100),
		publications: make(chan centrifuge.PublicationEvent, 1000),
		joins:        make(chan centrifuge.JoinEvent, 100),
		leaves:       make(chan centrifuge.LeaveEvent, 100),
		errors:       make(chan error, 100),
	}
	made.OnSubscribing(func(e centrifuge.SubscribingEvent) { s.subscribing <- e })
	made.OnSubscribed(func(e centrifuge.SubscribedEvent) { s.subscribed <- e })
	made.OnUnsubscribed(func(e centrifuge.UnsubscribedEvent) { s.unsubscribed <- e })
	made.OnPublication(func(e centrifuge.PublicationEvent) { s.publications <- e })
	made.OnJoin(func(e centrifuge.JoinEvent) { s.joins <- e })
	made.OnLeave(func(e centrifuge.LeaveEvent) { s.leaves <- e })
	made.OnError(func(e centrifuge.SubscriptionErrorEvent) { s.errors <- e.Error })
	return s
}

// subscribe returns a subscription that the server confirmed.
func (c *client) subscribe(t *testing.T, channel string, config centrifuge.SubscriptionConfig) *subscription {
	t.Helper()
	s := c.subscription(t, channel, config)
	ok(t, s.Subscribe())
	next(t, "subscribed to "+channel, s.subscribed)
	return s
}

// publish publishes {"n": n} by the API.
func publish(t *testing.T, channel string, n int) {
	t.Helper()
	api(t, "publish", object{"channel": channel, "data": object{"n": n}})
}

// expect checks that the next publications are {"n": first} to {"n": last}.
func (s *subscription) expect(t *testing.T, first, last int) {
	t.Helper()
	for n := first; n <= last; n++ {
		got := next(t, fmt.Sprintf("publication %d", n), s.publications)
		equal(t, "data", string(got.Data), fmt.Sprintf(`{"n":%d}`, n))
	}
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func TestConnectReportsAnIdAndTheVersion(t *testing.T) {
	inBoth(t, func(t *testing.T, p protocol) {
		c := p.client(t, options{})
		ok(t, c.Connect())
		event := next(t, "connected", c.connected)
		if len(event.ClientID) != 36 || event.Version == "" {
			t.Fatalf("%+v", event)
		}
	})
}

func TestPublicationsOfClientsAndOfTheApiArriveInOrder(t *testing.T) {
	inBoth(t, func(t *testing.T, p protocol) {
		channel := unique("stream:order")
		one, two := p.connect(t, options{claims: object{"info": object{"a": 1}}}), p.connect(t, options{})
		first := one.subscribe(t, channel, centrifuge.SubscriptionConfig{})
		second := two.subscribe(t, channel, centrifuge.SubscriptionConfig{})
		for n := 1; n <= 50; n++ {
			_, err := first.Publish(soon(t), []byte(fmt.Sprintf(`{"n":%d}`, n)))
			ok(t, err)
		}
		for n := 1; n <= 50; n++ {
			got := next(t, "publication", second.publications)
			equal(t, "data", string(got.Data), fmt.Sprintf(`{"n":%d}`, n))
			equal(t, "offset", got.Offset, n)
			equal(t, "publisher", got.Info.User, one.user)
			equal(t, "info", string(got.Info.ConnInfo), `{"a":1}`)
		}
		api(t, "publish", object{"channel": channel, "data": object{"n": 51}, "tags": object{"k": "v"}})
		got := next(t, "publication of the API", second.publications)
		equal(t, "tags", got.Tags, map[string]string{"k": "v"})
		equal(t, "publisher", got.Info == nil, true)
		first.expect(t, 1, 51)
	})
}

func TestUnsubscribedClientsGetNothing(t *testing.T) {
	inBoth(t, func(t *testing.T, p protocol) {
		channel := unique("room:quiet")
		c := p.connect(t, options{})
		s := c.subscribe(t, channel, centrifuge.SubscriptionConfig{})
		publish(t, channel, 1)
		s.expect(t, 1, 1)
		ok(t, s.Unsubscribe())
		equal(t, "code", next(t, "unsubscribed", s.unsubscribed).Code, 0)
		for api(t, "presence_stats", object{"channel": channel})["num_clients"] != 0.0 {
			time.Sleep(10 * time.Millisecond)
		}
		publish(t, channel, 2)
		ok(t, s.Subscribe())
		next(t, "subscribed again", s.subscribed)
		publish(t, channel, 3)
		s.expect(t, 3, 3)
	})
}

func TestErrorsArriveWithTheirCodes(t *testing.T) {
	inBoth(t, func(t *testing.T, p protocol) {
		c := p.connect(t, options{})
		for channel, code := range map[string]uint32{"nowhere:x": 102, "closed:x": 103} {
			s := c.subscription(t, channel, centrifuge.SubscriptionConfig{})
			ok(t, s.Subscribe())
			equal(t, channel, next(t, "refusal", s.unsubscribed).Code, code)
			failed := next(t, "error", s.errors)
			if !strings.Contains(failed.Error(), fmt.Sprint(code)) {
				t.Fatalf("%s: %v", channel, failed)
			}
		}
		_, err := c.Publish(soon(t), unique("stream:none"), []byte(`{}`))
		equal(t, "publish without subscription", errorCode(t, err), 103)
		s := c.subscribe(t, unique("room:none"), centrifuge.SubscriptionConfig{})
		_, err = s.History(soon(t))
		equal(t, "history without history", errorCode(t, err), 108)
	})
}

func errorCode(t *testing.T, err error) uint32 {
	t.Helper()
	failed, isError := err.(*centrifuge.Error)
	if !isError {
		t.Fatalf("not an error of the server: %v", err)
	}
	return failed.Code
}

func TestRpcReachesTheBackend(t *testing.T) {
	inBoth(t, func(t *testing.T, p protocol) {
		c := p.connect(t, options{})
		result, err := c.RPC(soon(t), "double", []byte(`{"n":21}`))
		ok(t, err)
		var answer struct {
			Twice int
			User  string
		}
		ok(t, json.Unmarshal(result.Data, &answer))
		equal(t, "answer", answer.Twice, 42)
		equal(t, "user", answer.User, c.user)
		_, err = c.RPC(soon(t), "halve", []byte(`{}`))
		equal(t, "code", errorCode(t, err), 1234)
	})
}

func TestPingsKeepAConnection(t *testing.T) {
	inBoth(t, func(t *testing.T, p protocol) {
		// The server closes a client that answers no ping after at most 3 s; the client gives up on a
		// server that sends none for 6 s.
		c := p.connect(t, options{compress: true, pingDelay: 4 * time.Second})
		s := c.subscribe(t, unique("stream:idle"), centrifuge.SubscriptionConfig{})
		time.Sleep(7 * time.Second)
		publish(t, s.Channel, 1)
		s.expect(t, 1, 1)
		none(t, "the connection broke", c.connecting)
	})
}
