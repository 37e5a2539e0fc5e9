"use strict";
// The token is kept in this tab's session storage, never in a URL. Every text is set as text content, never as HTML.
const TOKEN = "seedcore-token";
const memory = {};
const store = {
  get token() { try { return sessionStorage.getItem(TOKEN); } catch { return memory.token || null; } },
  set token(value) {
    memory.token = value;
    try { value ? sessionStorage.setItem(TOKEN, value) : sessionStorage.removeItem(TOKEN); } catch { /* this page only */ }
  },
};
const $ = (id) => document.getElementById(id);
function put(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = String(text);
  if (className) element.className = className;
  return element;
}
function ask(path) {
  const headers = { Accept: "application/json" };
  if (store.token) headers.Authorization = `Bearer ${store.token}`;
  return fetch(path, { headers, cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(5000) });
}
function wantToken(response) {
  // Status 401: no token was sent; 403: it is wrong. Returns true if the form is shown now.
  if (response.status !== 401 && response.status !== 403) return false;
  $("token-fault").textContent = response.status === 403 ? "That token is wrong." : "";
  store.token = null;
  $("token-card").hidden = false;
  $("token").focus();
  return true;
}
function tokenForm(again) {
  $("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const value = $("token").value.trim();
    if (!value) { $("token-fault").textContent = "Enter the token first."; return; }
    if (!/^[\x21-\x7e]+$/.test(value)) { $("token-fault").textContent = "A token contains no blanks and no special characters."; return; }
    store.token = value;
    $("token").value = "";
    $("token-fault").textContent = "";
    $("token-card").hidden = true;
    again();
  });
  $("forget").addEventListener("click", () => { store.token = null; location.reload(); });
}
