package api

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/store"
)

// Token is an access token without its text.
type Token struct {
	ID         string   `json:"id"`
	Tenant     *string  `json:"tenant" doc:"null for a platform token."`
	Name       string   `json:"name"`
	Scopes     []string `json:"scopes"`
	CreatedAt  string   `json:"created_at" format:"date-time"`
	ExpiresAt  *string  `json:"expires_at" format:"date-time"`
	LastUsedAt *string  `json:"last_used_at" format:"date-time" doc:"Up to a minute old."`
}

// CreatedToken is a token in the answer to its creation, the only one that
// shows its text.
type CreatedToken struct {
	Token
	Text string `json:"token" doc:"The token itself; shown here only."`
}

// TokenCreate is the body of POST /tokens.
type TokenCreate struct {
	Tenant    field[string]    `json:"tenant,omitempty" nullable:"true" doc:"Whose token it is; null or left out for the platform."`
	Name      field[string]    `json:"name,omitempty" maxLength:"128" doc:"What it is for."`
	Scopes    field[[]string]  `json:"scopes,omitempty" minItems:"1" uniqueItems:"true" doc:"webhooks:read and webhooks:write when left out; at most what your own token has."`
	ExpiresAt field[time.Time] `json:"expires_at,omitempty" nullable:"true" doc:"When it ends; never when left out, or with your own token."`
}

const maxTokenName = 128

func (s *server) tokenOperations() []*operation {
	return []*operation{{
		id: "list-tokens", method: "GET", path: "/tokens", tag: "Platform", scope: access.ScopeAdmin, reach: ofPlatform,
		summary: "List tokens",
		query:   []param{limitParam, cursorParam, {"tenant", "A tenant's name; all tokens when left out.", stringSchema()}},
		success: []success{{status: 200, doc: "A page of tokens.", model: reflect.TypeFor[list[Token]]()}},
		handle:  s.listTokens,
	}, {
		id: "create-token", method: "POST", path: "/tokens", tag: "Platform", scope: access.ScopeAdmin, reach: ofPlatform,
		summary:     "Create a token",
		description: "It can do no more than the token that makes it, and does not outlive it. The answer is the only one that shows its text.",
		body:        jsonBody[TokenCreate](),
		success:     []success{{status: 201, doc: "The token.", model: reflect.TypeFor[answer[CreatedToken]]()}},
		handle:      s.createToken,
	}, {
		id: "delete-token", method: "DELETE", path: "/tokens/{tokenId}", tag: "Platform", scope: access.ScopeAdmin, reach: ofPlatform,
		summary: "Revoke a token", headers: []param{preferParam},
		success: deleted, failures: []posthorn.Code{posthorn.NotFound},
		handle: s.deleteToken,
	}}
}

func showToken(t *store.Token, tenant string) Token {
	return Token{
		ID: t.Ref, Tenant: maybe(tenant), Name: t.Name, Scopes: t.Scopes, CreatedAt: posthorn.FormatTime(t.CreatedAt),
		ExpiresAt: maybeTime(t.ExpiresAt), LastUsedAt: maybeTime(t.LastUsedAt),
	}
}

func (s *server) listTokens(q *request) (*reply, error) {
	limit, before := q.query.limit(defaultLimit), s.placeID(q)
	if err := q.query.err(); err != nil {
		return nil, err
	}
	tenant := int64(-1)
	if q.query.has("tenant") {
		t, err := s.tenantNamed(q, q.query.text("tenant"))
		switch {
		case posthorn.ErrorCode(err) == posthorn.NotFound:
			return listReply(s, q, []Token{}, 0)
		case err != nil:
			return nil, err
		}
		tenant = t.ID
	}
	tokens, err := s.Store.Tokens(q.Context(), tenant, before, limit+1)
	if err != nil {
		return nil, err
	}
	var next int64
	if len(tokens) > limit {
		tokens = tokens[:limit]
		next = tokens[limit-1].ID
	}
	shown, err := s.showTokens(q, tokens)
	if err != nil {
		return nil, err
	}
	return listReply(s, q, shown, next)
}

// showTokens names the tokens' tenants. A token whose tenant was deleted
// between the two reads is no more.
func (s *server) showTokens(q *request, tokens []store.Token) ([]Token, error) {
	names := map[int64]string{0: ""}
	shown := make([]Token, 0, len(tokens))
	for i := range tokens {
		id := tokens[i].Tenant
		if _, known := names[id]; !known {
			t, err := s.Store.TenantByID(q.Context(), id)
			if isMissing(err) {
				continue
			}
			if err != nil {
				return nil, err
			}
			names[id] = t.Name
		}
		shown = append(shown, showToken(&tokens[i], names[id]))
	}
	return shown, nil
}

func (s *server) createToken(q *request) (*reply, error) {
	var in TokenCreate
	read, err := decode(q.body, &in)
	if err != nil {
		return nil, err
	}
	tenant, err := s.checkToken(q, read, &in)
	if err != nil {
		return nil, err
	}
	if err := read.err(); err != nil {
		return nil, err
	}
	scopes := in.Scopes.V
	if !in.Scopes.Set {
		scopes = access.DefaultScopes()
	}
	for _, scope := range scopes {
		if !q.principal.Has(scope) {
			return nil, posthorn.Errorf(posthorn.Forbidden, "A token cannot make one that can do more: yours lacks the scope %s.", scope)
		}
	}
	text, hash := access.NewToken()
	t := store.Token{
		Ref: posthorn.NewRef(posthorn.TokenPrefix, q.at), Tenant: tenant.ID, Name: in.Name.V, Hash: hash, Scopes: scopes,
		CreatedAt: q.at, ExpiresAt: in.ExpiresAt.V,
	}
	if t.ExpiresAt.IsZero() {
		t.ExpiresAt = q.principal.ExpiresAt
	}
	rep, err := ok(http.StatusCreated, CreatedToken{showToken(&t, tenant.Name), text})
	if err != nil {
		return nil, err
	}
	rep.secret = true
	if err := s.remember(q, rep); err != nil {
		return nil, err
	}
	_, err = s.Store.CreateToken(q.Context(), q.change(), t)
	return rep, err
}

// checkToken notes what is wrong with the body and finds its tenant, the zero
// one for the platform.
func (s *server) checkToken(q *request, in *input, t *TokenCreate) (tenant posthorn.Tenant, err error) {
	if t.Tenant.Set && !t.Tenant.Null && in.sound("tenant") {
		tenant, err = s.tenantNamed(q, t.Tenant.V)
		if posthorn.ErrorCode(err) == posthorn.NotFound {
			in.fault("/tenant", "is not known; create the tenant first")
		} else if err != nil {
			return tenant, err
		}
	}
	if in.sound("name") && (utf8.RuneCountInString(t.Name.V) > maxTokenName || hasControl(t.Name.V)) {
		in.fault("/name", "must have at most %d characters and no control characters", maxTokenName)
	}
	if t.Scopes.Set && in.sound("scopes") {
		checkScopes(in, t.Scopes.V)
	}
	if t.ExpiresAt.Set && !t.ExpiresAt.Null && in.sound("expires_at") {
		switch limit := q.principal.ExpiresAt; {
		case !t.ExpiresAt.V.After(q.at):
			in.fault("/expires_at", "is in the past")
		case !limit.IsZero() && t.ExpiresAt.V.After(limit):
			in.fault("/expires_at", "is later than your own token's end, %s", posthorn.FormatTime(limit))
		}
	}
	return tenant, nil
}

func hasControl(s string) bool {
	return slices.ContainsFunc([]rune(s), func(r rune) bool { return r < 0x20 || r == 0x7f })
}

func checkScopes(in *input, scopes []string) {
	if len(scopes) == 0 {
		in.fault("/scopes", "must name at least one scope: %s", joined(access.Scopes()))
	}
	for i, scope := range scopes {
		at := fmt.Sprintf("/scopes/%d", i)
		switch {
		case !slices.Contains(access.Scopes(), scope):
			in.fault(at, "is not a scope; there are %s", joined(access.Scopes()))
		case slices.Contains(scopes[:i], scope):
			in.fault(at, "is there twice")
		}
	}
}

func (s *server) deleteToken(q *request) (*reply, error) {
	ref := q.PathValue("tokenId")
	if !posthorn.ValidRef(posthorn.TokenPrefix, ref) {
		return nil, missing(store.ErrNotFound, "token")
	}
	if err := s.Store.DeleteToken(q.Context(), q.change(), -1, ref); err != nil {
		return nil, missing(err, "token")
	}
	return deletedReply(q)
}
