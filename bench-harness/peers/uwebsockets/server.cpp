// A server of topics on uWebSockets: the path of a WebSocket's upgrade is the topic that it is subscribed to,
// and POST /publish/TOPIC sends the body to all of them. One App a thread, all on the same port; a publication
// goes to the others by Loop::defer.
//
// Usage: server PORT THREADS [PING_SECONDS]

#include <App.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

struct Nothing {};

struct Member {
    uWS::Loop *loop;
    uWS::App *app;
};

static std::mutex mutex;
static std::vector<Member> members;

// Between the upgrade and the opening of a socket, which follow each other at once.
static thread_local std::string opening;

static void publish(uWS::App *own, std::string_view topic, std::string_view message) {
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
    uWS::App app;
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
    app.post("/publish/*", [&app](auto *response, auto *request) {
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
    app.listen("127.0.0.1", port, [port](auto *listener) {
        if (!listener) {
            fprintf(stderr, "cannot listen on 127.0.0.1:%d\n", port);
            exit(1);
        }
    });
    app.run();
}

int main(int count, char **arguments) {
    if (count != 3 && count != 4) {
        fprintf(stderr, "usage: %s PORT THREADS [PING_SECONDS]\n", arguments[0]);
        return 2;
    }
    int port = atoi(arguments[1]);
    unsigned threads = atoi(arguments[2]);
    unsigned pingSeconds = count == 4 ? atoi(arguments[3]) : 0;
    std::vector<std::thread> others;
    for (unsigned nth = 1; nth < threads; ++nth) others.emplace_back(serve, port, threads, pingSeconds);
    serve(port, threads, pingSeconds);
    for (auto &thread : others) thread.join();
}
