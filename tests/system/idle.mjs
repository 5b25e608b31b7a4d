// A client that connects, reads what comes and says nothing more.

import WebSocket from "ws";

const socket = new WebSocket(process.argv[2]);
socket.on("open", () => socket.send('{"id":1,"connect":{}}'));
socket.on("message", (data) => console.log(String(data)));
socket.on("error", (error) => console.log(error.message));
setTimeout(() => process.exit(0), 120_000);
