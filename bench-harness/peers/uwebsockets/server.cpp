// A server of topics on uWebSockets: the path of a WebSocket's upgrade is the topic that it is subscribed to,
// and POST /publish/TOPIC sends the body to all of them. One App a thread, all on the same port; a publication
// goes to the others by Loop::defer.
//
// Usage: server PORT THREADS [PING_SECONDS]
// Built with LIBUS_USE_OPENSSL it serves subscribers over TLS and publishers on a port without it:
//        server-tls PORT THREADS PING_SECONDS PUBLISH_PORT CERTIFICATE KEY

#include <App.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

struct Nothing {};

#ifdef LIBUS_USE_OPENSSL
using Service = uWS::SSLApp;
#else
using Service = uWS::App;
#endif

static int publishPort = 0;
static uWS::SocketContextOptions options;

struct Member {
    uWS::Loop *loop;
    Service *app;
};

static std::mutex mutex;
static std::vector<Member> members;

// Between the upgrade and the opening of a socket, which follow each other at once.
static thread_local std::string opening;

static void publish(Service *own, std::string_view topic, std::string_view message) {
    own->publish(topic, message, uWS::OpCode::TEXT, false);
    for (Member &member : members) {
        if (member.app == own) continue;
        member.loop->defer([app = member.app, topic = std::string(topic), message = std::string(message)]() {
            app->publish(topic, message, uWS::OpCode::TEXT, false);
        });
    }
}

// The library pings a socket that was idle for its timeout less a margin, which is 4 s for short ones.
static constexpr unsigned PING_MARGIN = 4;

static void serve(int port, unsigned threads, unsigned pingSeconds) {
    Service app(options);
#ifdef LIBUS_USE_OPENSSL
    uWS::App publishers;
#else
    Service &publishers = app;
#endif
    app.ws<Nothing>("/*", {
        .compression = uWS::DISABLED,
        .maxPayloadLength = 64 * 1024,
        .idleTimeout = static_cast<unsigned short>(pingSeconds ? pingSeconds + PING_MARGIN : 0),
        .maxBackpressure = 1024 * 1024,
        .sendPingsAutomatically = pingSeconds > 0,
        .upgrade = [](auto *response, auto *request, auto *context) {
            opening = request->getUrl().substr(1);
            response->template upgrade<Nothing>({}, request->getHeader("sec-websocket-key"),
                request->getHeader("sec-websocket-protocol"),
                request->getHeader("sec-websocket-extensions"), context);
        },
        .open = [](auto *socket) { socket->subscribe(opening); },
    });
    publishers.post("/publish/*", [&app](auto *response, auto *request) {
        std::string topic(request->getUrl().substr(sizeof("/publish/") - 1));
        response->onAborted([]() {});
        response->onData([&app, response, topic = std::move(topic), body = std::string()](
                             std::string_view part, bool last) mutable {
            if (last && body.empty()) {
                publish(&app, topic, part);
            } else {
                body.append(part);
                if (last) publish(&app, topic, body);
            }
            if (last) response->end("ok");
        });
    });
    {
        std::lock_guard<std::mutex> lock(mutex);
        members.push_back({uWS::Loop::get(), &app});
    }
    // Nobody listens before everybody is in the list: from then on it is only read.
    for (;;) {
        std::lock_guard<std::mutex> lock(mutex);
        if (members.size() == threads) break;
    }
    auto listen = [](auto &one, int at) {
        one.listen("127.0.0.1", at, [at](auto *listener) {
            if (!listener) {
                fprintf(stderr, "cannot listen on 127.0.0.1:%d\n", at);
                exit(1);
            }
        });
    };
    listen(app, port);
    if (publishPort) listen(publishers, publishPort);
    app.run();
}

int main(int count, char **arguments) {
#ifdef LIBUS_USE_OPENSSL
    if (count != 7) {
        fprintf(stderr, "usage: %s PORT THREADS PING_SECONDS PUBLISH_PORT CERTIFICATE KEY\n", arguments[0]);
        return 2;
    }
    publishPort = atoi(arguments[4]);
    options.cert_file_name = arguments[5];
    options.key_file_name = arguments[6];
#else
    if (count != 3 && count != 4) {
        fprintf(stderr, "usage: %s PORT THREADS [PING_SECONDS]\n", arguments[0]);
        return 2;
    }
#endif
    int port = atoi(arguments[1]);
    unsigned threads = atoi(arguments[2]);
    unsigned pingSeconds = count >= 4 ? atoi(arguments[3]) : 0;
    std::vector<std::thread> others;
    for (unsigned nth = 1; nth < threads; ++nth) others.emplace_back(serve, port, threads, pingSeconds);
    serve(port, threads, pingSeconds);
    for (auto &thread : others) thread.join();
}
