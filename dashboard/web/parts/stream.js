// What the server sends once a second, and whether it does.
import { useState, useEffect } from "../html.js";

/** `{state: connecting|open|lost, lag: the newest snapshot}`; the browser reconnects by itself. */
export function useStream() {
  const [stream, setStream] = useState({ state: "connecting", lag: null });
  useEffect(() => {
    let source, retry;
    const open = () => {
      source = new EventSource("/api/v1/stream");
      source.onopen = () => setStream((old) => ({ ...old, state: "open" }));
      source.addEventListener("lag", (event) => setStream({ state: "open", lag: JSON.parse(event.data) }));
      source.onerror = () => {
        setStream((old) => ({ ...old, state: "lost" }));
        // A closed source (an error page in the place of the stream) never comes back by itself.
        if (source.readyState === EventSource.CLOSED) retry = setTimeout(open, 1000);
      };
    };
    open();
    return () => { clearTimeout(retry); source.close(); };
  }, []);
  return stream;
}
