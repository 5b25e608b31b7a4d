// A server of topics on Node's `ws`: the path of a WebSocket's upgrade is the topic that it is subscribed to, and
// POST /publish/TOPIC sends the body to all of them, one after the other.
//
// Usage: node server.cjs PORT [PING_SECONDS]

'use strict';

const http = require('node:http');
const { WebSocketServer } = require('ws');

const pingSeconds = Number(process.argv[3] ?? 0);
const topics = new Map();

const server = http.createServer((request, response) => {
    const parts = [];
    request.on('data', (part) => parts.push(part));
    request.on('end', () => {
        const body = Buffer.concat(parts);
        const topic = request.url.slice('/publish/'.length);
        for (const socket of topics.get(topic) ?? []) socket.send(body, { binary: false });
        response.setHeader('Content-Length', 2);
        response.end('ok');
    });
});
server.keepAliveTimeout = 0;
server.requestTimeout = 0;
server.maxRequestsPerSocket = 0;

const sockets = new WebSocketServer({ server, perMessageDeflate: false, clientTracking: false });
sockets.on('connection', (socket, request) => {
    const topic = request.url.slice(1);
    let members = topics.get(topic);
    if (!members) topics.set(topic, (members = new Set()));
    members.add(socket);
    if (pingSeconds > 0) {
        socket.isAlive = true;
        socket.on('pong', () => (socket.isAlive = true));
    }
    socket.on('error', () => {});
    socket.on('close', () => {
        members.delete(socket);
        if (members.size === 0) topics.delete(topic);
    });
});

// The heartbeat of the library's own documentation.
if (pingSeconds > 0) {
    setInterval(() => {
        for (const members of topics.values()) {
            for (const socket of members) {
                if (!socket.isAlive) {
                    socket.terminate();
                    continue;
                }
                socket.isAlive = false;
                socket.ping();
            }
        }
    }, pingSeconds * 1000);
}

server.listen({ port: Number(process.argv[2]), host: '127.0.0.1', backlog: 8192 });
