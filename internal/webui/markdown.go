package webui

import (
	"bytes"
	"html/template"
	"net/url"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"

	"github.com/gantry-containers/gantry/internal/errs"
)

// render turns Markdown of anybody into HTML that is safe to show. HTML in it is
// left out by goldmark, and what the links transformer leaves has no address but
// those of web pages and mail. An image is shown as a link: a page that loads
// from elsewhere tells elsewhere who reads it.
func render(markdown string) (template.HTML, error) {
	md := goldmark.New(
		goldmark.WithExtensions(
			// The policy of the pages allows no style attributes.
			extension.NewTable(extension.WithTableCellAlignMethod(extension.TableCellAlignAttribute)),
			extension.Strikethrough, extension.TaskList, extension.Linkify,
		),
		goldmark.WithParserOptions(parser.WithASTTransformers(util.Prioritized(links{}, 1000))),
	)
	var html bytes.Buffer
	if err := md.Convert([]byte(markdown), &html); err != nil {
		return "", errs.InvalidArgument("cannot render the README: %w", err)
	}
	return template.HTML(html.String()), nil
}

// links takes the addresses apart from the texts where they are not safe.
type links struct{}

// Transform implements parser.ASTTransformer.
func (links) Transform(doc *ast.Document, reader text.Reader, _ parser.Context) {
	var found []ast.Node
	_ = ast.Walk(doc, func(n ast.Node, entering bool) (ast.WalkStatus, error) { // never fails
		if entering {
			switch n.(type) {
			case *ast.Link, *ast.Image, *ast.AutoLink:
				found = append(found, n)
			}
		}
		return ast.WalkContinue, nil
	})
	for _, n := range found {
		switch n := n.(type) {
		case *ast.Link:
			if !safe(string(n.Destination)) {
				unwrap(n)
				continue
			}
			mark(n)
		case *ast.Image:
			if !safe(string(n.Destination)) || within(n) {
				unwrap(n)
				continue
			}
			link := ast.NewLink()
			link.Destination = n.Destination
			move(n, link)
			n.Parent().ReplaceChild(n.Parent(), n, link)
			mark(link)
		case *ast.AutoLink:
			if !safe(address(n, reader.Source())) {
				n.Parent().ReplaceChild(n.Parent(), n, ast.NewString(n.Label(reader.Source())))
				continue
			}
			mark(n)
		}
	}
}

func address(n *ast.AutoLink, source []byte) string {
	if n.AutoLinkType == ast.AutoLinkEmail {
		return "mailto:" + strings.TrimPrefix(string(n.URL(source)), "mailto:")
	}
	return string(n.URL(source))
}

// mark keeps the page linked to from learning where the reader came from, and
// search engines from counting it.
func mark(n ast.Node) { n.SetAttributeString("rel", []byte("nofollow noopener noreferrer ugc")) }

// within tells whether an image is the text of a link already.
func within(n ast.Node) bool {
	for p := n.Parent(); p != nil; p = p.Parent() {
		if p.Kind() == ast.KindLink {
			return true
		}
	}
	return false
}

func move(from, to ast.Node) {
	for child := from.FirstChild(); child != nil; child = from.FirstChild() {
		from.RemoveChild(from, child)
		to.AppendChild(to, child)
	}
}

// unwrap leaves the children in the place of their parent.
func unwrap(n ast.Node) {
	parent := n.Parent()
	for child := n.FirstChild(); child != nil; child = n.FirstChild() {
		n.RemoveChild(n, child)
		parent.InsertBefore(parent, n, child)
	}
	parent.RemoveChild(parent, n)
}

// safe tells whether a link may be followed: with a scheme of the web or of
// mail, and absolute, as there is nothing a relative one could mean here.
func safe(destination string) bool {
	u, err := url.Parse(strings.TrimSpace(destination))
	if err != nil {
		return false
	}
	switch strings.ToLower(u.Scheme) {
	case "http", "https":
		return u.Host != ""
	case "mailto":
		return true
	}
	return false
}
