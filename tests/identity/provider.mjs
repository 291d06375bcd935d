// A real OpenID provider (oidc-provider) for the tests. Its only argument is JSON:
// {"redirect": ..., "secret": ..., "people": {id: claims}}. It prints its port when it listens.
// POST /rotate: it signs with a new key from now on, and publishes that alone.
import http from "node:http";
import { generateKeyPairSync, randomBytes } from "node:crypto";
import Provider from "oidc-provider";

const given = JSON.parse(process.argv[2]);
const cookieKeys = [randomBytes(16).toString("hex")];
let handle;

function made(issuer) {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const key = { ...privateKey.export({ format: "jwk" }), kid: randomBytes(8).toString("hex"), use: "sig", alg: "RS256" };
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: "sipserver",
        client_secret: given.secret,
        redirect_uris: [given.redirect],
        grant_types: ["authorization_code"],
        response_types: ["code"],
      },
    ],
    claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name", "groups"] },
    conformIdTokenClaims: given.conform ?? false,
    pkce: { required: () => true },
    cookies: { keys: cookieKeys },
    jwks: { keys: [key] },
    features: { devInteractions: { enabled: true } },
    async findAccount(_context, id) {
      return { accountId: id, claims: async () => ({ sub: id, ...given.people[id] }) };
    },
  });
  return provider.callback();
}

const server = http.createServer((request, response) => {
  if (request.method === "POST" && request.url === "/rotate") {
    handle = made(`http://127.0.0.1:${server.address().port}`);
    response.writeHead(204).end();
    return;
  }
  handle(request, response);
});
server.listen(0, "127.0.0.1", () => {
  const { port } = server.address();
  handle = made(`http://127.0.0.1:${port}`);
  console.log(port);
});
