// Renders chats with Go's text/template as Ollama does, for tests.
//
// Standard input: a JSON list of {"template": text, "messages": [{"role", "content"}]}.
// Standard output: a JSON list of texts; "ERROR: ..." where a template fails.
//
// Source: Ollama, template/template.go: messages of one role in a row are joined by an empty line, the
// variables are System, Messages and Response, and the one function is json.
package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

type request struct {
	Template string    `json:"template"`
	Messages []message `json:"messages"`
}

func collated(given []message) (string, []*message) {
	var system []string
	var joined []*message
	for index := range given {
		next := given[index]
		if next.Role == "system" {
			system = append(system, next.Content)
		}
		if end := len(joined) - 1; end >= 0 && joined[end].Role == next.Role {
			joined[end].Content += "\n\n" + next.Content
		} else {
			joined = append(joined, &next)
		}
	}
	return strings.Join(system, "\n\n"), joined
}

func rendered(asked request) string {
	asJSON := func(value any) string { text, _ := json.Marshal(value); return string(text) }
	parsed, err := template.New("").Option("missingkey=zero").
		Funcs(template.FuncMap{"json": asJSON}).Parse(asked.Template)
	if err != nil {
		return "ERROR: " + err.Error()
	}
	system, messages := collated(asked.Messages)
	var text strings.Builder
	values := map[string]any{"System": system, "Messages": messages, "Response": ""}
	if err := parsed.Execute(&text, values); err != nil {
		return "ERROR: " + err.Error()
	}
	return text.String()
}

func main() {
	var asked []request
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		panic(err)
	}
	texts := make([]string, len(asked))
	for index, one := range asked {
		texts[index] = rendered(one)
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(texts); err != nil {
		panic(err)
	}
}
